"""Accidental values: null, negative numbers, halves of characters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.traces.test_reader_fuzz import SAMPLES, read
from tests.traces.text_samples import SECRET, TEXT_SAMPLES

from holdfast.errors import TraceError
from holdfast.traces.formats.canonical import SCHEMA
from holdfast.traces.formats.repairs import with_whole_characters
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session

NAMES = sorted(name for name, (suffix, _) in SAMPLES.items() if suffix.startswith("json"))


def _rows(name: str) -> list[Any]:
    suffix, content = SAMPLES[name]
    return [msgspec.json.decode(row) for row in _parts(suffix, content)]


def _parts(suffix: str, content: bytes) -> list[bytes]:
    return [content] if suffix == "json" else content.splitlines()


def _written(rows: list[Any]) -> bytes:
    return b"\n".join(msgspec.json.encode(row) for row in rows)


def _fields(value: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every object inside with each of its fields."""
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from _fields(inner)
    if isinstance(value, dict):
        yield from ((value, name) for name in list(value))


def _read(rows: list[Any], suffix: str) -> list[Session] | None:
    try:
        return read(_written(rows), suffix)
    except TraceError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_null_equals_a_missing_field(name: str) -> None:
    rows, suffix = _rows(name), SAMPLES[name][0]
    for holder, field in _fields(rows):
        old = holder.pop(field)
        without = _read(rows, suffix)
        holder[field] = None
        if without is not None:
            with_null = _read(rows, suffix)
            assert with_null is not None, field
            assert [len(one.turns) for one in with_null] == [len(one.turns) for one in without]
        holder[field] = old


@pytest.mark.parametrize("name", NAMES)
def test_negative_optional_number_is_no_error(name: str) -> None:
    rows, suffix = _rows(name), SAMPLES[name][0]
    for holder, field in _fields(rows):
        old = holder[field]
        if isinstance(old, bool) or not isinstance(old, int | float):
            continue
        del holder[field]
        is_optional = _read(rows, suffix) is not None
        holder[field] = -1
        assert not is_optional or _read(rows, suffix) is not None, field
        holder[field] = old


def _canonical(*turns: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    session = {"record": "session", "session": "a", "block_size_tokens": 16, "turns": turns}
    return [
        {"record": "trace", "schema": SCHEMA},
        session | fields,
        {"record": "end", "num_sessions": 1, "num_turns": len(turns)},
    ]


def test_negative_times_are_read_as_0_and_counted(write_lines: Any) -> None:
    odd: dict[str, Any] = {"prompt_tokens": 20, "gap_s": -0.4, "latency_s": -1}
    reports: list[FileReport] = []
    (session,) = read_sessions(
        write_lines("a.jsonl", *_canonical({"prompt_tokens": 20}, odd)), on_file=reports.append
    )
    assert (session.turns[1].gap_s, session.turns[1].latency_s) == (0.0, 0.0)
    assert reports[0].num_negative_values == 2


def test_negative_counts_are_read_as_not_recorded_and_counted(write_lines: Any) -> None:
    turn = {"prompt_tokens": 20, "cached_tokens": -1, "trigger": None}
    reports: list[FileReport] = []
    (session,) = read_sessions(write_lines("a.jsonl", *_canonical(turn)), on_file=reports.append)
    assert (session.turns[0].cached_tokens, session.turns[0].trigger) == (None, "user")
    assert reports[0].num_negative_values == 1


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"prompt_tokens": None}, r"turns\[0\].prompt_tokens: Expected `int`, got `null`"),
        ({"prompt_tokens": 20, "new_blocks": [None]}, r"new_blocks\[0\]: Expected"),
        ({"prompt_tokens": 20, "triger": "user", "agent": None}, "unknown field `triger`"),
        ({"prompt_tokens": 20, "latency_s": 1e13}, "latency_s: Expected `float` <= 1"),
    ],
    ids=["needed", "item", "misspelt", "huge"],
)
def test_other_wrong_values_are_errors_that_name_the_field(
    write_lines: Any, turn: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"a\.jsonl: line 2, .*{message}"):
        list(read_sessions(write_lines("a.jsonl", *_canonical(turn))))


def test_odd_values_of_a_call_do_not_stop_a_session_of_many(call: Any, write_trace: Any) -> None:
    odd = call(9, [1]) | {"think_time": -3.0, "input_types": None}
    reports: list[FileReport] = []
    (session,) = read_sessions(write_trace([call(0, [1]), odd]), on_file=reports.append)
    assert session.turns[1].gap_s == 0.0
    assert reports[0].num_negative_values == 1


def test_repairs_counted_once_in_a_file_read_twice(tmp_path: Path) -> None:
    rows = _rows("WEKA lines")
    rows[0]["requests"][2]["think_time"] = -1
    path = tmp_path / "a.jsonl"
    path.write_bytes(_written(rows))
    reports: list[FileReport] = []
    list(read_sessions(path, on_file=reports.append))
    assert reports[0].num_negative_values == 1


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\uDC1F", b"\xed\xa0\xbd", rb"\\ud83d"])
@pytest.mark.parametrize("name", sorted(TEXT_SAMPLES))
def test_halves_of_characters_are_no_error(name: str, half: bytes) -> None:
    suffix, content = SAMPLES[name]
    cut = content.replace(SECRET.encode(), b"x" + half + b"y")
    assert cut != content
    whole = read(content, suffix)
    for options in ({}, {"keeps_text": True}):
        sessions = read(cut, suffix, **options)
        assert [len(one.turns) for one in sessions] == [len(one.turns) for one in whole]
        msgspec.json.encode(sessions)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (rb"\ud83d\ude00", rb"\ud83d\ude00"),
        (rb"\ude00\ud83d", rb"\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\\ud83d \n", rb"\\ud83d \n"),
        (rb"\\\ud83d", rb"\\\ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\N{GRINNING FACE}".encode()),
        (b"\xed\xa0\xbd", "\N{REPLACEMENT CHARACTER}".encode()),
    ],
)
def test_only_halves_of_characters_are_replaced(text: bytes, whole: bytes) -> None:
    assert with_whole_characters(text) == whole


def test_other_invalid_bytes_are_an_error_anywhere(tmp_path: Path) -> None:
    suffix, content = SAMPLES["ATIF"]
    with pytest.raises(TraceError, match="not valid UTF-8 JSON"):
        read(content.replace(SECRET.encode(), b"\xff"), suffix)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_byte_order_mark_is_ignored(name: str) -> None:
    suffix, content = SAMPLES[name]
    marked = read(b"\xef\xbb\xbf" + content, suffix)
    assert [len(one.turns) for one in marked] == [len(one.turns) for one in read(content, suffix)]
