"""Forks, compactions and joins of Claude Code's sessions, and sub-agents' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.traces.claude_code import answered, entry, result, said, usage

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent

TASK = {"prompt": "look around", "subagent_type": "Explore"}
SIDE: dict[str, Any] = {"isSidechain": True, "agentId": "x"}


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return path


def main_lines(*following: Any, **returned: Any) -> list[Any]:
    return [
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640)),
        said("u2", "a1", 5),
        answered("a2", "u2", 6, usage(700), tool=("t", "Task", TASK)),
        result("r", "a2", 30, "t", toolUseResult={"agentId": "x"} | returned),
        answered("a3", "r", 33, usage(800)),
        *following,
    ]


def sub_agent_lines(name: str = "x") -> list[Any]:
    side = SIDE | {"agentId": name}
    return [
        said(f"v-{name}", None, 7, "look around", **side),
        answered(f"b-{name}", f"v-{name}", 9, usage(320), **side),
    ]


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def build(*lines: Any) -> list[Session]:
        return list(read_sessions(write(tmp_path / "s.jsonl", *lines)))

    return build


def test_answer_after_an_earlier_message_is_a_fork(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "a1", 10),
        answered("a2", "u2", 14, usage(9600)),
        said("u3", "a1", 20, "said otherwise"),
        answered("a3", "u3", 24, usage(9600)),
        said("u4", "a3", 30),
        answered("a4", "u4", 34, usage(9700)),
    )
    assert session.events == (SessionEvent("fork", 2),)


def test_edited_first_message_is_a_fork(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", None, 20, "said otherwise"),
        answered("a2", "u2", 24, usage(6400)),
    )
    assert session.events == (SessionEvent("fork", 1),)


def test_parallel_results_and_program_messages_are_no_forks(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), message_id="m", tool=("t1", "Read", {})),
        answered("a2", "a1", 5, usage(640), message_id="m", tool=("t2", "Bash", {})),
        result("r1", "a1", 6, "t1"),
        result("r2", "a2", 8, "t2"),
        said("m", "r1", 8, isMeta=True),
        answered("a3", "r1", 9, usage(700)),
        said("u2", "a3", 10),
        answered("e", "u2", 11, usage(1), isApiErrorMessage=True),
        answered("a4", "e", 12, usage(800)),
    )
    assert session.events == ()


def test_compaction_is_a_timed_event_and_no_fork(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        entry("system", "c", None, 20, subtype="compact_boundary", logicalParentUuid="a1"),
        said("u2", "c", 21, "so far", isCompactSummary=True),
        said("u3", "u2", 30),
        answered("a2", "u3", 34, usage(1400)),
    )
    assert session.events == (SessionEvent("compaction", 1, 16.0),)


def test_a_summary_without_a_boundary_is_a_compaction(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", None, 21, "so far", isCompactSummary=True),
        answered("a2", "u2", 34, usage(1400)),
    )
    assert session.events == (SessionEvent("compaction", 1, 17.0),)


def test_going_back_before_a_compaction_is_a_fork(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        entry("system", "c", None, 20, subtype="compact_boundary"),
        said("u2", "c", 21, "so far", isCompactSummary=True),
        answered("a2", "u2", 34, usage(1400)),
        said("u3", "a1", 40, "said otherwise"),
        answered("a3", "u3", 44, usage(6500)),
    )
    assert session.events == (SessionEvent("compaction", 1, 16.0), SessionEvent("fork", 2))


def test_trailing_compaction_is_an_event_after_the_last_turn(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        entry("system", "c", None, 20, subtype="compact_boundary"),
    )
    assert session.events == (SessionEvent("compaction", 1, 16.0),)


def test_entry_with_a_missing_parent_is_no_fork(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "lost", 10),
        answered("a2", "u2", 14, usage(6500)),
    )
    assert session.events == ()


def test_answer_after_a_sub_agents_result_joins_it(read: Any) -> None:
    main, explorer = read(*main_lines(), *sub_agent_lines())
    assert (explorer.parent_turn, explorer.join_turn) == (1, 2)
    assert not main.turns[1].tools[0].is_background


def test_background_sub_agent_has_no_join(read: Any) -> None:
    main, explorer = read(*main_lines(status="async_launched"), *sub_agent_lines())
    assert (explorer.parent_turn, explorer.join_turn) == (1, None)
    assert main.turns[1].tools[0].is_background


def test_sub_agent_with_an_unread_result_has_no_join(read: Any) -> None:
    _, explorer = read(*main_lines()[:-1], *sub_agent_lines())
    assert (explorer.parent_turn, explorer.join_turn) == (1, None)


def test_sub_agent_called_twice_was_started_by_the_first_call(read: Any) -> None:
    again = [
        answered("a4", "a3", 40, usage(900), tool=("t2", "Task", TASK | {"prompt": "again"})),
        result("r2", "a4", 60, "t2", toolUseResult={"agentId": "x"}),
        answered("a5", "r2", 62, usage(950)),
    ]
    _, explorer = read(*main_lines(*again), *sub_agent_lines())
    assert (explorer.parent_turn, explorer.join_turn) == (1, 4)


def test_sub_agent_file_beside_its_session_is_read_with_it(tmp_path: Path) -> None:
    write(tmp_path / "agent-x.jsonl", *sub_agent_lines())
    write(tmp_path / "s.jsonl", *main_lines())
    reports: list[FileReport] = []
    main, explorer = read_sessions(tmp_path, on_file=reports.append)
    assert (main.session_id, explorer.session_id) == ("s", "s/x")
    assert (explorer.parent_id, explorer.parent_turn, explorer.agent) == ("s", 1, "Explore")
    assert [(report.path.name, report.num_sessions) for report in reports] == [
        ("s.jsonl", 2),
        ("agent-x.jsonl", 0),
    ]


def test_session_that_begins_with_a_sub_agent_is_the_parent(tmp_path: Path) -> None:
    write(tmp_path / "agent-x.jsonl", *sub_agent_lines())
    write(tmp_path / "s.jsonl", *sub_agent_lines("warm"), *main_lines())
    parents = {one.session_id: one.parent_id for one in read_sessions(tmp_path)}
    assert parents == {"s": None, "s/x": "s", "s/warm": "s"}


def test_sub_agent_file_given_with_its_session_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", *main_lines())
    sub_agent = write(tmp_path / "s" / "subagents" / "agent-x.jsonl", *sub_agent_lines())
    reports: list[FileReport] = []
    sessions = list(read_sessions(sub_agent, path, on_file=reports.append))
    assert [session.session_id for session in sessions] == ["s", "s/x"]
    assert [report.path for report in reports] == [path, sub_agent]


def test_sub_agent_without_a_call_has_its_session_as_parent(tmp_path: Path) -> None:
    write(tmp_path / "agent-y.jsonl", *sub_agent_lines("y"))
    lines = main_lines()
    del lines[3:5]
    write(tmp_path / "s.jsonl", *lines[:3], answered("a3", "u2", 33, usage(800)))
    _, other = read_sessions(tmp_path)
    assert (other.parent_id, other.parent_turn, other.agent) == ("s", None, "")


def test_sub_agents_without_their_session_count_as_orphans(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write(tmp_path / f"agent-{name}.jsonl", *sub_agent_lines(name))
    reports: list[FileReport] = []
    sessions = list(read_sessions(tmp_path, on_file=reports.append))
    assert [(one.session_id, one.parent_id) for one in sessions] == [("s/x", None), ("s/y", None)]
    assert [report.num_orphans for report in reports] == [1, 1]


def test_a_seed_moves_a_sub_agents_file_with_its_session(tmp_path: Path) -> None:
    for name in "abcdef":
        lines = [line | {"sessionId": name} for line in main_lines()]
        write(tmp_path / f"{name}.jsonl", *lines)
        side = [line | {"sessionId": name} for line in sub_agent_lines()]
        write(tmp_path / f"agent-{name}.jsonl", *side)
    orders = set()
    for seed in range(4):
        names = [session.session_id for session in read_sessions(tmp_path, seed=seed)]
        assert names[1::2] == [f"{name}/x" for name in names[::2]]
        orders.add(tuple(names))
    assert len(orders) > 1


def test_a_broken_file_of_a_sub_agent_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", *main_lines())
    path = write(tmp_path / "agent-x.jsonl", *sub_agent_lines(), {"uuid": 5})
    with pytest.raises(TraceError, match=r"agent-x\.jsonl: line 3, uuid: Expected `str"):
        list(read_sessions(tmp_path))
    skipped: list[TraceError] = []
    sessions = list(read_sessions(tmp_path, on_skipped=skipped.append))
    assert [session.session_id for session in sessions] == ["s", "s/x"]
    assert [error.source for error in skipped] == [str(path)]


def test_a_seed_leaves_sub_agents_of_one_session_in_their_order(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / f"agent-{name}.jsonl", *sub_agent_lines(name))
    write(tmp_path / "s.jsonl", *main_lines())
    orders = {
        tuple(session.session_id for session in read_sessions(tmp_path, seed=seed))
        for seed in range(5)
    }
    assert orders == {("s", "s/a", "s/b", "s/c", "s/d")}


def test_bad_line_before_the_first_entry_is_reported_once(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", *main_lines())
    path.write_bytes(b'{"type": 5}\n' + path.read_bytes())
    skipped: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=skipped.append)
    assert (len(session.turns), len(skipped)) == (3, 1)
