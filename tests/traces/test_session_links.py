"""Links between the sessions of a reading: ids, parents and their turns."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, said, usage
from tests.traces.test_reader_fuzz import SAMPLES

from holdfast.errors import TraceError
from holdfast.traces.formats.canonical import SCHEMA
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.order import parents_first, reordered
from holdfast.traces.record import Session, Turn


def _conversation(name: str) -> list[Any]:
    return [
        said("u1", None, 0, sessionId=name),
        answered("a1", "u1", 4, usage(640), sessionId=name),
    ]


@pytest.fixture
def copies(write_lines: Any) -> Path:
    for file, name in (("one", "a"), ("other", "b"), ("two", "a")):
        path = write_lines(f"{file}.jsonl", *_conversation(name))
    return Path(path).parent


def test_repeated_session_id_is_an_error_with_both_files(copies: Path) -> None:
    with pytest.raises(TraceError, match=r"two\.jsonl: session 'a': a second .* in .*one\.jsonl"):
        list(read_sessions(copies))


def test_lenient_skips_the_second_session_of_an_id(copies: Path) -> None:
    skipped: list[TraceError] = []
    sessions = list(read_sessions(copies, on_skipped=skipped.append))
    assert [session.session_id for session in sessions] == ["a", "b"]
    assert [Path(error.source).name for error in skipped] == ["two.jsonl"]


def _row(name: str, num_turns: int = 1, **fields: Any) -> dict[str, Any]:
    turns = [{"prompt_tokens": 20}] * num_turns
    return {"record": "session", "session": name, "block_size_tokens": 16, "turns": turns} | fields


def _lines(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    end = {"record": "end", "num_sessions": len(rows)}
    num_turns = sum(len(row["turns"]) for row in rows)
    return [{"record": "trace", "schema": SCHEMA}, *rows, end | {"num_turns": num_turns}]


def test_sub_agents_of_a_skipped_session_are_skipped(write_lines: Any) -> None:
    write_lines("a.jsonl", *_lines(_row("s"), _row("s/x", parent="s")))
    again = [_row("s", 9), _row("s/y", parent="s", parent_turn=7), _row("s/y/z", parent="s/y")]
    path = write_lines("b.jsonl", *_lines(*again, _row("t")))
    skipped: list[TraceError] = []
    sessions = list(read_sessions(path.parent, on_skipped=skipped.append))
    assert [session.session_id for session in sessions] == ["s", "s/x", "t"]
    assert len(skipped) == 3


@pytest.mark.parametrize(
    ("links", "message", "left"),
    [
        ({"parent": "gone", "parent_turn": 0}, "parent 'gone' is not among", (None, None, None)),
        ({"parent": "p", "parent_turn": 2}, "turn 2 of parent 'p', which has 2", ("p", None, None)),
        ({"parent": "p", "parent_turn": 1, "join_turn": 5}, "join_turn: turn 5", ("p", 1, None)),
    ],
)
def test_broken_link_is_an_error_or_leniently_removed(
    write_lines: Any, links: dict[str, Any], message: str, left: Any
) -> None:
    path = write_lines("a.jsonl", *_lines(_row("p", 2), _row("c", **links)))
    with pytest.raises(TraceError, match=message):
        list(read_sessions(path))
    skipped: list[TraceError] = []
    _, child = read_sessions(path, on_skipped=skipped.append)
    assert (child.parent_id, child.parent_turn, child.join_turn) == left
    assert len(skipped) == 1


def test_parent_may_come_later_in_seeded_order(write_lines: Any) -> None:
    write_lines("a.jsonl", *_lines(_row("p", 2)))
    path = write_lines("b.jsonl", *_lines(_row("c", parent="p", parent_turn=1)))
    for seed in range(8):
        assert len(list(read_sessions(path.parent, seed=seed))) == 2


@pytest.mark.parametrize("name", ["Mooncake", "Bailian", "decision log"])
def test_files_of_one_name_have_separate_sessions(tmp_path: Path, name: str) -> None:
    suffix, content = SAMPLES[name]
    for directory in ("one", "other"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / f"trace.{suffix}").write_bytes(content)
    ids = [session.session_id for session in read_sessions(tmp_path)]
    assert len(set(ids)) == len(ids) > 1
    assert all(each.startswith(("one/trace-", "other/trace-")) for each in ids)
    shutil.rmtree(tmp_path / "other")
    assert all(each.session_id.startswith("trace-") for each in read_sessions(tmp_path))


def _session(name: str, parent: str | None = None) -> Session:
    return Session(name, 16, (Turn(0.0, 20, 1, (1,)),), "test", parent_id=parent)


def test_any_seed_keeps_parents_first_and_families_together() -> None:
    links = {"x": None, "b": "a", "y": None, "a": None, "c": "b"}
    sessions = [_session(name, parent) for name, parent in links.items()]
    for seed in range(20):
        names = [one.session_id for one in reordered(sessions, random.Random(seed))]
        assert sorted(names) == sorted(links)
        assert names[names.index("a") :][:3] == ["a", "b", "c"]


def test_every_item_of_a_circle_appears_once() -> None:
    links = {"a": "b", "b": "a", "c": "c", "d": "e"}
    assert sorted(parents_first(list(links), str, links.get)) == sorted(links)


def test_agents_of_a_circle_are_sessions_and_one_has_no_parent(write_lines: Any) -> None:
    def ended(name: str, parent: str, time_ms: int) -> dict[str, Any]:
        request = {"request_id": name, "input_tokens": 9, "request_received_ms": time_ms}
        context = {"session_id": name, "parent_session_id": parent}
        return {
            "schema": "dynamo.request.trace.v1",
            "event_type": "request_end",
            "agent_context": context,
            "request": request | {"total_time_ms": 1},
        }

    path = write_lines("d.jsonl", ended("a", "b", 1), ended("b", "a", 2))
    one, other = read_sessions(path)
    assert (one.parent_id, other.parent_id) == (None, one.session_id)


def test_too_long_session_is_an_error_or_leniently_skipped(
    write_lines: Any,
) -> None:
    tokens = {"input_tokens": 1, "cache_read_input_tokens": 1 << 24, "output_tokens": 5}
    path = write_lines("a.jsonl", said("u1", None, 0), answered("a1", "u1", 4, tokens))
    write_lines("b.jsonl", *_conversation("b"))
    with pytest.raises(TraceError, match=r"turn 0: a prompt .* of 16777217 tokens; expected at mo"):
        list(read_sessions(path))
    (session,) = read_sessions(path.parent, on_skipped=lambda _: None)
    assert session.session_id == "b"


def test_undecodable_file_name_gives_printable_ids(tmp_path: Path) -> None:
    _, content = SAMPLES["Mooncake"]
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    try:
        path.write_bytes(content)
    except OSError:
        pytest.skip("the file system takes text only")
    reports: list[FileReport] = []
    ids = [session.session_id for session in read_sessions(path, on_file=reports.append)]
    assert (ids, reports[0].name) == (["?-1", "?-2"], "?.jsonl")
