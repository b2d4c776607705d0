"""Answers are recognised in any frame; markup of unknown meaning is "unknown"."""

# ruff: noqa: RUF001 - the full-width bar is part of some models' special tokens

from __future__ import annotations

import re

import pytest

from holdfast.tool_calls.turn_end import SpecialTokens, parse_turn_end

ANSWER = "Done, see [the log](http://x) and item {3}."

# Ends and frames of answers, by model family.
FRAMES = {
    "chatml": "{}<|im_end|>\n",
    "llama": "{}<|eot_id|>",
    "phi": "{}<|end|>",
    "mistral": "[THINK]hm[/THINK]{}</s>",
    "deepseek": "<think>hm</think>{}<｜end▁of▁sentence｜>",
    "glm": "<think>hm</think>\n{}<|user|>",
    "gemma": "{}<end_of_turn>",
    "gemma4": "<|channel>thought\nhm<channel|>{}<turn|>",
    "harmony": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final"
    "<|message|>{}<|return|>",
    "muse": " to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>{}<|eot|>",
    "inkling": "<|content_thinking|>hm<|end_message|><|message_model|><|content_text|>{}"
    "<|end_message|><|content_model_end_sampling|>",
    "kimi-k3": "<|open|>think<|sep|>hm<|close|>think<|sep|><|open|>response<|sep|>{}"
    "<|close|>response<|sep|><|close|>message<|sep|><|end_of_msg|>",
    "cohere": "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>"
    "<|END_OF_TURN_TOKEN|>",
    "plamo": "<|plamo:begin_think:plamo|>hm<|plamo:end_think:plamo|>{}<|plamo:tag|>",
    "k2-horizon": "<ifm|think_fast>hm</ifm|think_fast>{}<|im_end|>",
    "hunyuan": "<think:0a1b>hm</think:0a1b><answer>\n{}\n</answer><|eos|>",
    "ernie": "hm\n</think>\n\n<response>\n{}\n</response>\n</s>",
    "gigachat": "{}<|message_sep|>",
    "exaone": "{}[|endofturn|]",
    "poolside": "<think>hm</think>{}</assistant>",
    "others": "{}<|endofassistant|><|assistant_end|><|role_end|><|eom|><|EOT|><|endoftext|>",
}

ANSWERS = {
    "html": '<div class="x">\n<p>Hi<br>\n<img src="a.png" />\n</div>',
    "page": "A page:\n<!DOCTYPE html>\n<html><head><meta charset='a'></head><body></body></html>",
    "details": "<details>\n<summary>More</summary>\ntext\n</details>",
    "component": "<template>\n<div/>\n</template>\n<script setup>\nlet a = [1]\n</script>",
    "fenced": "```xml\n<tool_use>\n<foo:bar>x</foo:bar>\n</tool_use>\n```",
    "fence-begins-out-of-sight": "call</x:tool>\n```\nThat is all.",
    "inline": "Close it with `</tool_use>` or `<|foo|>`",
    "generics": "It returns a Vec<String> or an Option<T>",
    "comparison": "It holds if a <b and c> d",
    "pipes": "Write f <| g |> h",
    "code": "int main() {\n  if (a[0]) {\n    b();\n  }\n}",
    "json": '{"name": "x", "version": [1, 2]}',
    "fenced-json": '```json\n{"name": "x", "version": 1}\n```',
    "checklist": "- [x] one\n- [ ] two",
    "smiley": "1) Done :)",
    "interval": "It lies in (0, 1]",
    "numbered": "1) as in [1]",
    "autolink": "<https://example.com/a>",
    "placeholder": "Run git checkout <branch>",
    "mentioned-in-reasoning": '<think>Not <tool_call>{"name": "f", "arguments": {}}</tool_call>, '
    "as all that was asked for is there.</think>Done [x].",
}

UNKNOWN = {
    "special-token": "I look.<|run_tool|>git status<|end_tool|>",
    "special-token-within": "I look.<|run_tool|>git status",
    "full-width-token": "<｜调用｜>git status<｜结束｜>",
    "half-token": "I look.<tool|>git status",
    "closing-tag": "<tool_use>\n<name>bash</name>\n</tool_use>",
    "closing-tag-and-words": "<my_call>git status</my_call>\nLet me see.",
    "tag-at-the-end": "git status<end_of_tool>",
    "bracketed": "[TOOL_REQUEST] git status [END_TOOL_REQUEST]",
    "element-breaks-off": "I look.\n<execute_command>\n<command>git st",
    "tag-breaks-off": "I look.</execute_co",
    "token-breaks-off": "I look.<|run_to",
    "json-breaks-off": 'I look.\n{"name": "ba',
    "json-begins-out-of-sight": 'and so on"}}</s>',
    "list-begins-out-of-sight": 'and so on")]<|eot|>',
    "json-without-a-name": "{'arguments': {'command': 'git status'}}",
    "fenced-call": 'I look.\n```json\n[{"name": "bash", "arguments": {}}]\n```',
    "fenced-code-for-a-tool": "```tool_code\nbash('git status')\n```",
    "reasoning-breaks-off": "<think>\nI should",
    "channel-breaks-off": "<|channel|>analysis<|message|>I should",
    "nothing-after-reasoning": "<think>hm</think>\n<|im_end|>",
    "nothing": "<|im_end|>",
}


@pytest.mark.parametrize("family", FRAMES)
def test_answer_recognised_in_every_frame(family: str) -> None:
    assert parse_turn_end(FRAMES[family].format(ANSWER)).kind == "human"


@pytest.mark.parametrize("family", FRAMES)
def test_answer_recognised_in_a_frame_of_special_tokens(family: str) -> None:
    marks = re.findall(r"<[^<>]+>|\[[^\[\]{}]+\]", FRAMES[family])
    tokens = SpecialTokens(ends=frozenset({"<|fin|>"}), others=frozenset(marks))
    assert parse_turn_end(FRAMES[family].format(ANSWER) + "<|fin|>", tokens).kind == "human"


@pytest.mark.parametrize("family", FRAMES)
def test_answer_recognised_without_its_beginning(family: str) -> None:
    text = FRAMES[family].format(ANSWER)
    assert parse_turn_end(text[text.index(ANSWER) + 5 :]).kind == "human"


@pytest.mark.parametrize("message_end", ["", "<|im_end|>"])
@pytest.mark.parametrize("name", ANSWERS)
def test_html_and_code_in_answers_are_no_markup(name: str, message_end: str) -> None:
    assert parse_turn_end(ANSWERS[name] + message_end).kind == "human"


@pytest.mark.parametrize("name", UNKNOWN)
def test_markup_of_unknown_meaning_is_unknown(name: str) -> None:
    assert parse_turn_end(UNKNOWN[name]).kind == "unknown"


@pytest.mark.parametrize("token", ["<|new_eos|>", "<stop_now>", "[FIN]", "◁fin▷"])
def test_end_token_of_the_tokenizer_ends_an_answer(token: str) -> None:
    tokens = SpecialTokens(ends=frozenset({token}))
    assert parse_turn_end(ANSWER + token, tokens).kind == "human"


@pytest.mark.parametrize("token", ["<run>", "[RUN]", "◁run▷"])
def test_other_special_tokens_have_unknown_meaning(token: str) -> None:
    tokens = SpecialTokens(ends=frozenset({"<|x|>"}), others=frozenset({token}))
    assert parse_turn_end(f"I look. git status{token}<|x|>", tokens).kind == "unknown"
    assert parse_turn_end("I look.<|x|>", tokens).kind == "human"


def test_end_token_after_a_call_does_not_hide_it() -> None:
    tokens = SpecialTokens(ends=frozenset({"◁fin▷"}))
    end = parse_turn_end('[TOOL_CALLS]bash{"command": "ls"}◁fin▷', tokens)
    assert [call.name for call in end.calls] == ["bash"]


def test_output_without_an_end_token_breaks_off() -> None:
    tokens = SpecialTokens(ends=frozenset({"<|x|>"}))
    assert parse_turn_end("a long file that goes on", tokens).kind == "unknown"
    assert parse_turn_end("a long file that goes on<|x|>", tokens).kind == "human"
    assert parse_turn_end("a long file that goes on<|im_end|>", tokens).kind == "human"


@pytest.mark.parametrize(
    "text",
    [
        '[TOOL_CALLS]▁[{"name":▁"bash",▁"arguments":▁{}}]</s>',
        '<functionĠname="bash">Ċ<paramĠname="x">a</param>Ċ</function>',
        '<tool_call><0x0A>{"name":▁"bash"}<0x0A></tool_call></s>',
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>bash<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    ],
)
def test_signs_for_white_space_do_not_hide_a_call(text: str) -> None:
    assert [call.name for call in parse_turn_end(text).calls] == ["bash"]
