"""Calls in the syntax of each of vLLM's tool parsers."""

from __future__ import annotations

import json

import pytest
from tests.tool_calls.call_samples import CALLS, UNNAMED

from holdfast.tool_calls.turn_end import parse_turn_end

# Their calls begin with a word, so a text that begins inside the call may be prose.
BEGINS_IN_WORDS = {"mistral", "phi4_mini_json"}


@pytest.mark.parametrize("parser", sorted(CALLS.keys() - UNNAMED))
def test_call_is_read_with_its_name(parser: str) -> None:
    text, message_end = CALLS[parser]
    end = parse_turn_end(text + message_end)
    assert (end.kind, [call.name for call in end.calls]) == ("tool", ["bash"])


@pytest.mark.parametrize("parser", sorted(CALLS))
@pytest.mark.parametrize("message_end", ["", "<|im_end|>", "</s>", "<|new_eos|>"])
def test_call_is_never_taken_for_an_answer(parser: str, message_end: str) -> None:
    assert parse_turn_end(CALLS[parser][0] + message_end).kind != "human"


@pytest.mark.parametrize("parser", sorted(CALLS))
def test_call_that_breaks_off_is_not_an_answer(parser: str) -> None:
    text = "".join(CALLS[parser])
    for length in range(text.index("bash") + 1, len(text) + 1):
        assert parse_turn_end(text[:length]).kind != "human", text[:length]


@pytest.mark.parametrize("parser", sorted(CALLS.keys() - BEGINS_IN_WORDS))
def test_end_of_a_call_is_not_an_answer(parser: str) -> None:
    text = "".join(CALLS[parser])
    for start in range(text.index("git status") + len("git status")):
        assert parse_turn_end(text[start:]).kind != "human", text[start:]


@pytest.mark.parametrize("parser", sorted(CALLS.keys() - UNNAMED - {"mimo"}))
def test_arguments_are_json_where_the_syntax_allows_it(parser: str) -> None:
    arguments = parse_turn_end("".join(CALLS[parser])).calls[0].arguments
    if arguments.startswith('{"'):
        assert json.loads(arguments) == {"command": "git status"}
    else:
        assert "git status" in arguments


TWO_CALLS = {
    "kimi-k3": "<|open|>tools<|sep|>"
    + "".join(
        f'<|open|>call tool="{name}" index="{i}"<|sep|><|close|>call<|sep|>'
        for i, name in enumerate(("read", "bash"), 1)
    )
    + "<|close|>tools<|sep|>",
    "kimi-k3-spaced": '<|open|> tools <|sep|> <|open|> call tool="read" index="1" <|sep|> '
    '<|close|> call <|sep|> <|open|> call tool="bash" index="2" <|sep|> <|close|> call <|sep|> '
    "<|close|> tools <|sep|>",
    "hunyuan": "<tool_calls:0a><tool_call:0a>read</tool_call:0a><tool_call:0a>bash"
    "<arg_key:0a>x</arg_key:0a><arg_value:0a>1</arg_value:0a></tool_call:0a></tool_calls:0a>",
    "k2-horizon": "<ifm|tool_calls><ifm|tool_call>read</ifm|tool_call><ifm|tool_call>bash"
    "<ifm|arg_key>x</ifm|arg_key><ifm|arg_type>int</ifm|arg_type><ifm|arg_value>1</ifm|arg_value>"
    "</ifm|tool_call></ifm|tool_calls>",
    "cohere": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "read", "parameters": {}},\n'
    '{"tool_call_id": "1", "tool_name": "bash", "parameters": {}}]<|END_ACTION|>',
    "apertus": '<|tools_prefix|>[{"read": {"path": "a"}}, {"bash": {}}]<|tools_suffix|>',
    "inkling": '<|content_invoke_tool_json|>{"name":"read","args":{}}<|end_message|>'
    '<|message_model|>bash<|content_invoke_tool_json|>{"name":"bash","args":{}}<|end_message|>',
    "minicpm": "<function name='read'></function>\n<functionname=\"bash\"></function>",
    "minimax-m3": "".join(
        f"]<]minimax[>[{tag}"
        for tag in ('<invoke name="read">', "</invoke>", '<invoke name="bash">', "</invoke>")
    ),
}


@pytest.mark.parametrize("syntax", TWO_CALLS)
def test_several_calls_are_read_in_order(syntax: str) -> None:
    end = parse_turn_end(TWO_CALLS[syntax])
    assert [call.name for call in end.calls] == ["read", "bash"]
