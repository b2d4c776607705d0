"""Normal form of message contents that a model sees as equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, result, said, usage
from tests.traces.codex import message

from holdfast.traces.history import Message
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session
from holdfast.traces.rendering import rendered

EQUIVALENT: dict[str, list[Any]] = {
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
DIFFERENT: list[Any] = [
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


@pytest.mark.parametrize("contents", EQUIVALENT.values(), ids=EQUIVALENT)
def test_equivalent_contents_have_equal_fingerprints(contents: list[Any]) -> None:
    assert len({Message.of("user", content) for content in contents}) == 1
    assert all(rendered(rendered(content)) == rendered(content) for content in contents)


def test_different_contents_have_different_fingerprints() -> None:
    assert len({Message.of("user", content).digest for content in DIFFERENT}) == len(DIFFERENT)


def test_text_length_is_its_utf8_bytes() -> None:
    assert Message.of("user", [{"type": "text", "text": 'é"\n'}]).num_bytes == 4


def test_kept_text_is_recorded_json() -> None:
    message = Message.of("user", [{"type": "text", "text": "a"}], keeps_text=True)
    assert message.text is not None
    assert message.text.content == '[{"type":"text","text":"a"}]'


def sessions_of(directory: Path, write_lines: Any, *files: list[Any]) -> list[Session]:
    for number, lines in enumerate(files):
        named = [line | {"sessionId": f"{number}"} for line in lines]
        write_lines(f"{number}.jsonl", *named)
    return list(read_sessions(directory))


def test_claude_code_text_parts_equal_plain_text(tmp_path: Path, write_lines: Any) -> None:
    def session(text: Any, output: Any) -> list[Any]:
        returned = result("r", "a1", 5, "t")
        returned["message"]["content"][0]["content"] = output
        lines = [
            said("u1", None, 0),
            answered("a1", "u1", 4, usage(6400, 6400), tool=("t", "Read", {})),
            returned,
            answered("a2", "r", 9, usage(12800, 6400)),
        ]
        lines[0]["message"]["content"] = text
        return lines

    parts = [{"type": "text", "text": "x" * 4000}]
    one, two = sessions_of(
        tmp_path, write_lines, session("x" * 4000, "x" * 4000), session(parts, parts)
    )
    assert [turn.block_ids for turn in one.turns] == [turn.block_ids for turn in two.turns]


def test_codex_text_parts_equal_plain_text() -> None:
    parts = message(2, "user", "please")["payload"]
    plain = parts | {"content": "please"}
    assert Message.of("user", parts) == Message.of("user", plain)
