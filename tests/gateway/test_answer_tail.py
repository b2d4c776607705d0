"""What answers say at their ends, in the forms of the three APIs."""

from __future__ import annotations

import pytest

from holdfast.gateway.answer_tail import has_first_token, read_tail

CHAT_STREAM = (
    b'data: {"choices":[{"delta":{"tool_calls":[{"function":{"name":"Read"}}]}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":90,"completion_tokens":7}}\n\ndata: [DONE]\n\n'
)
CHAT = (
    b'{"choices":[{"finish_reason": "stop"}],"usage":{"prompt_tokens": 5,"completion_tokens": 6}}'
)
MESSAGES = (
    b'data: {"type":"content_block_start","content_block":{"type":"tool_use","name":"Bash"}}\n\n'
    b'data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},'
    b'"usage":{"input_tokens":40,"output_tokens":3}}\n\n'
)
RESPONSES = (
    b'data: {"type":"response.completed","response":{"output":[{"type":"function_call",'
    b'"name":"shell"}],"usage":{"input_tokens":11,"output_tokens":12}}}\n\n'
)


@pytest.mark.parametrize(
    ("tail", "tokens", "kind", "tool"),
    [
        (CHAT_STREAM, (90, 7), "tool", "Read"),
        (CHAT, (5, 6), "human", None),
        (MESSAGES, (40, 3), "tool", "Bash"),
        (RESPONSES, (11, 12), "tool", "shell"),
        (b"data: broken off", (None, None), None, None),
        (b"", (None, None), None, None),
        (b'{"choices":[{"finish_reason":"length"}]}', (None, None), None, None),
    ],
)
def test_the_end_of_an_answer_is_read(
    tail: bytes, tokens: tuple[int | None, int | None], kind: str | None, tool: str | None
) -> None:
    read = read_tail(tail)
    assert (read.prompt_tokens, read.output_tokens) == tokens
    assert (None if read.end is None else read.end.kind) == kind
    names = [] if read.end is None else [call.name for call in read.end.calls]
    assert names == ([] if tool is None else [tool])


def test_early_events_of_responses_are_no_token() -> None:
    created = b'event: response.created\ndata: {"type":"response.created"}\n\n'
    delta = b'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    assert not has_first_token(created)
    assert has_first_token(created + delta)
    assert has_first_token(CHAT_STREAM)
