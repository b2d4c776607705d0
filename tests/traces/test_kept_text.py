"""Kept message texts: kept only on request, written only to the canonical format."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, result, said, usage
from tests.traces.text_samples import SECRET, TEXT_SAMPLES, written

from holdfast.errors import TraceError
from holdfast.traces.conversion import write_sessions
from holdfast.traces.formats.canonical import SCHEMA
from holdfast.traces.history import Message
from holdfast.traces.io import read_sessions
from holdfast.traces.record import MessageText, Session, Turn, TurnText
from holdfast.traces.writers.registry import WRITERS

FORMATS = pytest.mark.parametrize("sample", TEXT_SAMPLES)


def sample_file(directory: Path, sample: str) -> Path:
    suffix, build = TEXT_SAMPLES[sample]
    path = directory / f"a.{suffix}"
    path.write_bytes(written(build()))
    return path


def contents(session: Session) -> Iterator[str]:
    for turn in session.turns:
        if turn.text is not None:
            yield from (message.content for message in (*turn.text.prompt, *turn.text.answer))


def prompts(session: Session) -> list[list[MessageText]]:
    """Each prompt in full."""
    found: list[list[MessageText]] = []
    before: list[MessageText] = []
    for turn in session.turns:
        assert turn.text is not None
        found.append([*before[: turn.text.num_repeated], *turn.text.prompt])
        before = [*found[-1], *turn.text.answer]
    return found


@FORMATS
def test_text_kept_only_on_request(tmp_path: Path, sample: str) -> None:
    path = sample_file(tmp_path, sample)
    kept = list(read_sessions(path, keeps_text=True))
    assert all(turn.text is not None for session in kept for turn in session.turns)
    assert any(SECRET in content for session in kept for content in contents(session))
    bare = [
        replace(one, turns=tuple(replace(turn, text=None) for turn in one.turns)) for one in kept
    ]
    assert list(read_sessions(path)) == bare


@FORMATS
def test_repr_hides_kept_text(tmp_path: Path, sample: str) -> None:
    sessions = list(read_sessions(sample_file(tmp_path, sample), keeps_text=True))
    assert SECRET.casefold() not in repr(sessions).casefold()


@FORMATS
def test_kept_text_round_trips_through_canonical_format(tmp_path: Path, sample: str) -> None:
    kept = list(read_sessions(sample_file(tmp_path, sample), keeps_text=True))
    path = tmp_path / "kept.jsonl"
    write_sessions(kept, path, "holdfast", None)
    again = read_sessions(path, keeps_text=True)
    assert [[t.text for t in one.turns] for one in again] == [
        [t.text for t in one.turns] for one in kept
    ]


@FORMATS
def test_canonical_reader_drops_text_by_default(tmp_path: Path, sample: str) -> None:
    kept = list(read_sessions(sample_file(tmp_path, sample), keeps_text=True))
    path = tmp_path / "kept.jsonl"
    write_sessions(kept, path, "holdfast", None)
    assert all(turn.text is None for session in read_sessions(path) for turn in session.turns)


def test_prompts_rebuilt_from_repeated_counts(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    lines = [
        said("u1", None, 0, "please"),
        answered("a1", "u1", 4, usage(640), tool=("t", "Read", {"file_path": "x"})),
        result("r1", "a1", 6, "t"),
        answered("a2", "r1", 9, usage(700)),
        said("u2", "a1", 20, "no"),
        answered("a3", "u2", 24, usage(700)),
    ]
    path.write_bytes(written(lines))
    (session,) = read_sessions(path, keeps_text=True)
    found = prompts(session)
    assert [[message.role for message in prompt] for prompt in found] == [
        ["user"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user"],
    ]
    told = [[json.loads(message.content) for message in prompt] for prompt in found]
    assert told[0] == [{"type": "text", "text": "please"}]
    assert told[1][1]["input"] == {"file_path": "x"}
    assert told[1][2]["content"] == "result in r1"
    assert told[2][2] == {"type": "text", "text": "no"}
    texts = [turn.text for turn in session.turns]
    assert [text and text.num_repeated for text in texts] == [0, 2, 2]
    assert texts[1] is not None
    assert json.loads(texts[1].answer[0].content) == {"type": "text", "text": "answer in a2"}


def test_media_encoding_never_kept() -> None:
    message = Message.of("user", {"data": SECRET}, is_media=True, keeps_text=True)
    assert message.text == MessageText("user", "")


def test_calls_with_recorded_lengths_only_have_no_text(tmp_path: Path) -> None:
    def span(second: int, **attributes: Any) -> dict[str, Any]:
        return {
            "trace_id": "t",
            "span_id": f"{second}",
            "start_time": f"2026-01-05T10:00:0{second}Z",
            "end_time": f"2026-01-05T10:00:0{second}Z",
            "attributes": {f"gen_ai.{name}": value for name, value in attributes.items()},
        }

    said_in = {"operation.name": "chat", "input.messages": [{"role": "user"}]}
    spans = [span(1, **said_in), span(2, **{"usage.input_tokens": 700}), span(3, **said_in)]
    path = tmp_path / "a.json"
    path.write_bytes(written([{"spans": spans}]))
    (session,) = read_sessions(path, keeps_text=True)
    # After a turn without text the record has the whole prompt.
    whole = TurnText(0, (MessageText("user", '{"role":"user"}'),), ())
    assert [turn.text for turn in session.turns] == [whole, None, whole]


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"holdfast"}))
def test_formats_without_text_count_it_as_lost(name: str) -> None:
    text = TurnText(0, (MessageText("user", '"a"'),), ())
    session = Session("s", 64, (Turn(0.0, 64, 1, (0,), text=text),), "", start_s=0.0)
    file = io.BytesIO()
    assert WRITERS[name]([session], file)["Turn.text"] == 1
    assert b'"a"' not in file.getvalue()


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([{"repeated": 1}], r"turns\[0\]\.text\.repeated: repeats 1 messages; expected at most 0"),
        (
            [{"prompt": [{"content": "a"}], "answer": [{"content": "b"}]}, {"repeated": 3}],
            r"turns\[1\]\.text\.repeated: repeats 3 messages; expected at most 2",
        ),
        ([{"prompt": [{}]}, None, {"repeated": 1}], r"turns\[2\]\.text\.repeated: repeats 1"),
        ([{"prompt": [{"content": 5}]}], r"text\.prompt\[0\]\.content: Expected `str`"),
        ([{"says": SECRET}], r"turns\[0\]\.text: Object contains unknown field"),
    ],
    ids=["first", "more", "after-none", "type", "unknown"],
)
@pytest.mark.parametrize("keeps_text", [False, True])
def test_invalid_text_error_names_the_field(
    write_lines: Any, texts: list[Any], problem: str, keeps_text: bool
) -> None:
    turns = [{"prompt_tokens": 20} | ({} if text is None else {"text": text}) for text in texts]
    path = write_lines(
        "a.jsonl",
        {"record": "trace", "schema": SCHEMA},
        {"record": "session", "session": "a", "block_size_tokens": 16, "turns": turns},
        {"record": "end", "num_sessions": 1, "num_turns": len(turns)},
    )
    with pytest.raises(TraceError, match=problem) as caught:
        list(read_sessions(path, keeps_text=keeps_text))
    assert SECRET not in str(caught.value)
