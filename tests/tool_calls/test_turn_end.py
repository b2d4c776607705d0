"""Turn ends, read from the text of outputs."""

# ruff: noqa: RUF001 - the full-width bar is part of DeepSeek's special tokens
from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.tool_calls.syntax import SYNTAXES
from holdfast.tool_calls.turn_end import (
    MAX_TAIL_CHARS,
    ToolCall,
    TurnEnd,
    parse_turn_end,
    turn_end_of,
)

GIT = '{"command": "git status"}'

# One call of `bash` with `command` = `git status`, as each model family writes it.
ONE_CALL = {
    "hermes": "I look.\n<tool_call>\n"
    f'{{"name": "bash", "arguments": {GIT}}}\n</tool_call><|im_end|>',
    "hermes-arguments-first": f'<tool_call>{{"arguments": {GIT}, "name": "bash"}}</tool_call>',
    "hermes-arguments-as-text": "<tool_call>"
    + json.dumps({"name": "bash", "arguments": GIT})
    + "</tool_call>",
    "longcat": f'<longcat_tool_call>{{"name": "bash", "arguments": {GIT}}}</longcat_tool_call>',
    "qwen-coder": "Now.\n<tool_call>\n<function=bash>\n<parameter=command>\ngit status\n"
    "</parameter>\n</function>\n</tool_call><|im_end|>",
    "seed": "<seed:tool_call>\n<function=bash>\n<parameter=command>git status</parameter>\n"
    "</function>\n</seed:tool_call><seed:eos>",
    "llama-custom": f"<function=bash>{GIT}</function><|eot_id|>",
    "llama-tag": f'<|python_tag|>{{"name": "bash", "parameters": {GIT}}}<|eom_id|>',
    "llama-bare": f'{{"name": "bash", "parameters": {GIT}}}<|eot_id|>',
    "mistral": f'[TOOL_CALLS][{{"name": "bash", "arguments": {GIT}}}]</s>',
    "mistral-args": f"Sure.[TOOL_CALLS]bash[ARGS]{GIT}</s>",
    "mistral-call-id": f"[TOOL_CALLS]bash[CALL_ID]abc123xyz[ARGS]{GIT}</s>",
    "mistral-no-args": f"[TOOL_CALLS]bash{GIT}</s>",
    "deepseek-v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>bash\n"
    f"```json\n{GIT}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
    "deepseek-v3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>bash<｜tool▁sep｜>{GIT}"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
    "deepseek-v3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="bash">\n<｜DSML｜parameter '
    'name="command" string="true">git status</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    "</｜DSML｜function_calls><｜end▁of▁sentence｜>",
    "minimax": '<minimax:tool_call>\n<invoke name="bash">\n<parameter name="command">git status'
    "</parameter>\n</invoke>\n</minimax:tool_call>[e~[",
    "glm": "<tool_call>bash\n<arg_key>command</arg_key>\n<arg_value>git status</arg_value>\n"
    "</tool_call><|observation|>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.bash:0"
    f"<|tool_call_argument_begin|>{GIT}<|tool_call_end|><|tool_calls_section_end|><|im_end|>",
    "harmony": "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant<|channel|>"
    f"commentary to=functions.bash <|constrain|>json<|message|>{GIT}<|call|>",
    "granite": f'<|tool_call|>[{{"name": "bash", "arguments": {GIT}}}]<|end_of_text|>',
    "phi": f'functools[{{"name": "bash", "arguments": {GIT}}}]<|end|>',
    "jamba": f'<tool_calls>[{{"name": "bash", "arguments": {GIT}}}]</tool_calls>',
    "internlm": f'<|action_start|><|plugin|>{{"name": "bash", "parameters": {GIT}}}<|action_end|>',
}
PYTHONIC = {
    "bare": '[bash(command="git status")]<|eot|>',
    "llama4": '<|python_start|>[bash(command="git status")]<|python_end|><|eot|>',
    "lfm2": '<|tool_call_start|>[bash(command="git status")]<|tool_call_end|><|im_end|>',
    "olmo": '<function_calls>\nbash(command="git status")\n</function_calls>',
    "after-thinking": '<think>hm [x]</think>\n\n[bash(command="git status")]',
}


def hermes(name: str, arguments: str = "{}") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize("syntax", ONE_CALL)
def test_call_is_read_with_name_and_arguments(syntax: str) -> None:
    end = parse_turn_end(ONE_CALL[syntax])
    assert (end.kind, [call.name for call in end.calls]) == ("tool", ["bash"])
    assert json.loads(end.calls[0].arguments) == {"command": "git status"}


@pytest.mark.parametrize("syntax", PYTHONIC)
def test_pythonic_call_is_read_with_its_argument_text(syntax: str) -> None:
    expected = TurnEnd("tool", (ToolCall("bash", 'command="git status"'),))
    assert parse_turn_end(PYTHONIC[syntax]) == expected


# Their ends show no sign of a call.
UNMARKED_ENDS = {"llama-bare", "bare", "after-thinking", "phi", "granite"}
UNMARKED_ENDS |= {"mistral", "mistral-args", "mistral-call-id", "mistral-no-args"}


@pytest.mark.parametrize("syntax", sorted((ONE_CALL | PYTHONIC).keys() - UNMARKED_ENDS))
def test_end_of_a_call_without_its_beginning_is_a_tool(syntax: str) -> None:
    text = (ONE_CALL | PYTHONIC)[syntax]
    assert parse_turn_end(text[text.index("git status") + 3 :]).kind == "tool"


@pytest.mark.parametrize(
    "syntax", sorted((ONE_CALL | PYTHONIC).keys() - {"hermes-arguments-first"})
)
def test_call_that_breaks_off_in_arguments_keeps_its_name(syntax: str) -> None:
    text = (ONE_CALL | PYTHONIC)[syntax]
    end = parse_turn_end(text[: text.index("git status") + 3])
    assert (end.kind, [call.name for call in end.calls]) == ("tool", ["bash"])


PARALLEL = {
    "hermes": hermes("Read") + "\n" + hermes("Grep"),
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.Read:0"
    "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_call_begin|>functions.Grep:1"
    "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
    "mistral": '[TOOL_CALLS][{"name": "Read", "arguments": {}}, {"name": "Grep", "arguments": {}}]',
    "mistral-args": "[TOOL_CALLS]Read[ARGS]{}[TOOL_CALLS]Grep[ARGS]{}</s>",
    "llama": '{"name": "Read", "parameters": {}}; {"name": "Grep", "parameters": {}}',
    "phi": 'functools[{"name": "Read", "arguments": {}}, {"name": "Grep", "arguments": {}}]',
    "pythonic": "[Read(), Grep()]",
    "invoke": '<invoke name="Read"></invoke>\n<invoke name="Grep"></invoke>',
    "glm": "<tool_call>Read</tool_call><tool_call>Grep</tool_call>",
    "deepseek": "<｜tool▁call▁begin｜>Read<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>Grep<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
}


@pytest.mark.parametrize("syntax", PARALLEL)
def test_parallel_calls_are_found_in_order(syntax: str) -> None:
    end = parse_turn_end(PARALLEL[syntax])
    assert [call.name for call in end.calls] == ["Read", "Grep"]
    assert {call.arguments for call in end.calls} <= {"{}", ""}


@pytest.mark.parametrize(
    "text",
    [
        "All done. See [the docs](http://x) and {braces} <b>too</b>.<|im_end|>",
        "Plain words",
        "[1] is a footnote",
        '{"name": "Bob", "age": 3}',
        '[{"name": "Bob"}]',
        "<|channel|>final<|message|>Done.<|return|>",
        "Use <function=foo> to call foo in your templates.",
        'Close it with "</tool_call>" always.',
    ],
)
def test_answer_without_a_call_waits_for_a_human(text: str) -> None:
    assert parse_turn_end(text) == TurnEnd("human")


@pytest.mark.parametrize("syntax", [*ONE_CALL, *PYTHONIC])
def test_call_inside_an_answer_does_not_count(syntax: str) -> None:
    text = (ONE_CALL | PYTHONIC)[syntax] + " is how one would write it. " + "And so on. " * 20
    assert parse_turn_end(text).kind == "human"


def test_call_quoted_in_a_code_fence_does_not_count() -> None:
    assert parse_turn_end(f"Example:\n```\n{hermes('Read')}\n```\n").kind == "human"


@pytest.mark.parametrize("syntax", [*ONE_CALL, "llama4", "lfm2", "olmo"])
def test_call_followed_by_a_message_is_unknown(syntax: str) -> None:
    said = "\nThe status of the repository is being looked up, which takes a moment."
    if syntax != "llama-bare":
        assert parse_turn_end((ONE_CALL | PYTHONIC)[syntax] + said).kind == "unknown"


def test_code_after_a_call_does_not_quote_it() -> None:
    assert parse_turn_end(hermes("Read") + "\nI run `git status`.<|im_end|>").kind == "tool"


def test_final_message_after_harmony_call_waits_for_human() -> None:
    text = ONE_CALL["harmony"] + "<|start|>assistant<|channel|>final<|message|>Done.<|return|>"
    assert parse_turn_end(text).kind == "human"


def test_few_words_after_a_call_do_not_hide_it() -> None:
    assert parse_turn_end(hermes("Read") + "\nLet me see.<|im_end|>").kind == "tool"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n{'name': 'bash', 'arguments': {'command': 'git status'}}\n</tool_call>",
        '<tool_call>{"name": "bash", "arguments": {"command": "git\n status"}}</tool_call>',
        '<tool_call>{"bash": {"command": "git status"}}</tool_call>',
        "{'name': 'bash', 'arguments': {'command': \"git commit -m 'x'\"}}",
        'I look.\n\n{"name": "bash", "parameters": {"command": "git status"}}<|eot_id|>',
        '[{"name": "bash", "arguments": {"command": "git status"}}]',
        "<function name='bash'><param name='command'><![CDATA[git status]]></param></function>",
        "<tool_calls:0a1b><tool_call:0a1b>bash</tool_call:0a1b></tool_calls:0a1b>",
        '<|new_call|>{"name": "bash", "arguments": {}}<|new_call_end|>',
        '<anything:invoke name="bash"></anything:invoke>',
        "to=functions.bash<|channel|>commentary json<|message|>{}<|call|>",
    ],
)
def test_call_in_a_variant_of_a_syntax_keeps_its_name(text: str) -> None:
    end = parse_turn_end(text)
    assert (end.kind, [call.name for call in end.calls]) == ("tool", ["bash"])


def test_message_to_the_user_is_not_a_call() -> None:
    text = " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Done.<|eot|>"
    assert parse_turn_end(text) == TurnEnd("human")


def test_call_in_arguments_does_not_replace_the_outer_call() -> None:
    inner = hermes("Inner")
    text = (
        f"<tool_call>\n<function=Write>\n<parameter=content>\n{inner}\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    assert [call.name for call in parse_turn_end(text).calls][:1] == ["Write"]


def test_call_quoted_in_the_same_syntax_does_not_count() -> None:
    text = hermes("Write", json.dumps({"content": hermes("Inner")}))
    assert [call.name for call in parse_turn_end(text).calls] == ["Write"]


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_output_is_unknown(text: str) -> None:
    assert parse_turn_end(text) == TurnEnd("unknown")


@pytest.mark.parametrize("name", ["AskUserQuestion", "ask_followup_question", "ExitPlanMode"])
def test_tool_that_asks_the_human_waits_and_keeps_its_call(name: str) -> None:
    end = parse_turn_end(hermes("Read") + hermes(name))
    assert (end.kind, end.calls[-1].name) == ("human", name)


@pytest.mark.parametrize("name", ["", "a" * 129, "a\\u0007b", "two words"])
def test_unusable_tool_name_is_left_out(name: str) -> None:
    assert parse_turn_end(hermes(name)) == TurnEnd("tool")


def test_arguments_are_cut_to_size() -> None:
    text = hermes("Write", json.dumps({"content": "x" * 5000}))
    assert len(parse_turn_end(text).calls[0].arguments) == 1024


def test_only_the_tail_is_read() -> None:
    assert parse_turn_end(hermes("Read") + " " * MAX_TAIL_CHARS) == TurnEnd("unknown")


def test_known_calls_are_a_tool_turn_end() -> None:
    assert turn_end_of((ToolCall("Bash"),)).kind == "tool"


MARKERS = sorted({marker for s in SYNTAXES for marker in s.markers + s.closers})
PIECES = st.sampled_from(
    [
        *MARKERS,
        '{"name": "',
        '"arguments": {',
        "}",
        "]",
        "[f(",
        "'",
        '"',
        "\\",
        "```",
        "to=f ",
        "a\n",
        "<parameter=x>",
        '<invoke name="x">',
        "<arg_key>",
        "functions.f:0",
        "<|im_end|>",
        "{",
        "(",
    ]
)


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=60).map("".join))
def test_any_mixture_of_markers_is_read_within_bounds(text: str) -> None:
    end = parse_turn_end(text)
    assert end.kind in ("tool", "human", "unknown")
    assert len(end.calls) <= 32
    for call in end.calls:
        assert 0 < len(call.name) <= 128
        assert call.name.isprintable()
        assert len(call.arguments) <= 1024


@pytest.mark.parametrize("piece", [*MARKERS, "[", "{", "[f(", '{"name":"', "<tool_call>{", "to=a "])
def test_endless_repetition_of_a_marker_is_read(piece: str) -> None:
    assert parse_turn_end(piece * 20_000).kind in ("tool", "human", "unknown")
