"""Content that reads the same to a model, in the ways in which recordings write it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.traces.history import Message
from holdfast.traces.rendering import rendered

ALIKE: dict[str, list[Any]] = {
    "text": [
        "hello",
        [{"type": "text", "text": "hello"}],
        [{"type": "text", "content": "hello"}],
        {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}},
        {"type": "output_text", "text": "hello", "annotations": [], "logprobs": None},
        [{"text": "hello"}],
    ],
    "two texts": [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"text": "a"}, {"text": "b"}],
        ["a", {"type": "input_text", "text": "b", "cache_control": None}],
    ],
    "tool result": [
        {"type": "tool_result", "tool_use_id": "t", "content": "done"},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "done"}]},
        {"type": "tool_result", "tool_use_id": "t", "content": "done", "is_error": None},
    ],
}
UNLIKE: list[Any] = [
    "hello",
    "hello ",
    ["hello"],
    {"type": "thinking", "text": "hello"},
    {"type": "text", "text": "hello", "name": "x"},
    {"type": "text"},
    [{"text": "hello"}, {"text": ""}],
    {"type": ["text"], "text": "hello"},
    None,
    [],
]


@pytest.mark.parametrize("ways", ALIKE.values(), ids=ALIKE)
def test_ways_to_write_the_same_have_one_fingerprint(ways: list[Any]) -> None:
    assert len({Message.of("user", content) for content in ways}) == 1
    assert all(rendered(rendered(content)) == rendered(content) for content in ways)


def test_other_content_has_another_fingerprint() -> None:
    assert len({Message.of("user", content).digest for content in UNLIKE}) == len(UNLIKE)


def test_a_text_is_as_long_as_its_bytes() -> None:
    assert Message.of("user", [{"type": "text", "text": 'é"\n'}]).num_bytes == 4


def test_kept_text_is_what_was_recorded() -> None:
    message = Message.of("user", [{"type": "text", "text": "a"}], keeps_text=True)
    assert message.text is not None
    assert message.text.content == '[{"type":"text","text":"a"}]'
