"""Readers of Holdfast's own recordings: decision logs and replay records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.bench.turn_records import append_turns
from holdfast.core.results import TurnRecord
from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session, common_prefix_length
from holdfast.vllm.decision_log import DecisionLog


def record(session_id: str, turn_index: int, sent_s: float, **fields: Any) -> TurnRecord:
    values: dict[str, Any] = {
        "first_token_s": sent_s + 0.5,
        "last_token_s": sent_s + 2.0,
        "prompt_tokens": 640,
        "appended_tokens": 640,
        "first_seen_tokens": 640,
        "output_tokens": 7,
    }
    return TurnRecord(session_id, turn_index, sent_s, **(values | fields))


@pytest.fixture
def replayed(tmp_path: Path) -> Any:
    def build(*records: TurnRecord, policy: str = "holdfast") -> list[Session]:
        append_turns(tmp_path / "r.jsonl", policy, records)
        return list(read_sessions(tmp_path / "r.jsonl"))

    return build


def test_replay_records_are_turns_as_served(replayed: Any) -> None:
    (session,) = replayed(
        record("a", 0, 1.0),
        record("a", 1, 4.5, prompt_tokens=800, appended_tokens=480, cached_tokens=9),
    )
    first, second = session.turns
    assert session.session_id == "holdfast/a"
    assert (first.latency_s, first.output_tokens, second.gap_s) == (2.0, 7, 1.5)
    assert second.cached_tokens == 9
    assert common_prefix_length(first.block_ids, second.block_ids) == 5


def test_first_prompts_share_what_the_run_had_sent_before(replayed: Any) -> None:
    one, other = replayed(
        record("a", 0, 1.0, first_seen_tokens=512), record("b", 0, 2.0, first_seen_tokens=448)
    )
    shared = common_prefix_length(one.turns[0].block_ids, other.turns[0].block_ids)
    assert shared == 2


def test_each_policy_has_its_own_sessions(replayed: Any) -> None:
    replayed(record("a", 0, 1.0))
    one, other = replayed(record("a", 0, 1.0), policy="vllm-default")
    assert (one.session_id, other.session_id) == ("holdfast/a", "vllm-default/a")


def test_failed_turn_is_dropped_and_a_missing_one_is_an_error(replayed: Any) -> None:
    (session,) = replayed(record("a", 0, 1.0), record("a", 1, 4.0, last_token_s=None))
    assert len(session.turns) == 1
    with pytest.raises(TraceError, match=r"line 3, turn_index: turn 2 .* expected 1, the next"):
        replayed(record("a", 2, 9.0))


@pytest.fixture
def logged(tmp_path: Path) -> Any:
    def build(*events: dict[str, Any]) -> list[Session]:
        log = DecisionLog(tmp_path / "l.jsonl")
        for fields in events:
            log.write(**fields)
        log.close()
        return list(read_sessions(tmp_path / "l.jsonl"))

    return build


def arrived(time_s: float, request: str, session: int = 1, **fields: Any) -> dict[str, Any]:
    lengths = {"prompt_tokens": 640, "resident_blocks": 0, "missing_blocks": 40}
    return {"event": "turn_arrived", "time_s": time_s, "request": request, "session": session} | (
        lengths | {"rejected": False} | fields
    )


def finished(time_s: float, request: str, session: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "event": "turn_ended",
        "time_s": time_s,
        "request": request,
        "session": session,
        "output_tokens": 7,
        "kind": "shell",
        "tool": "Bash",
    } | fields


def started(time_s: float, **fields: Any) -> dict[str, Any]:
    return {"event": "engine_started", "time_s": time_s} | fields


def explained(time_s: float, session: int = 1, **fields: Any) -> dict[str, Any]:
    return {"event": "pause_explained", "time_s": time_s, "session": session, "tool": ""} | fields


def test_decision_log_records_are_turns_as_served(logged: Any) -> None:
    (session,) = logged(
        arrived(5.0, "a"),
        {"event": "evicted", "time_s": 5.5, "reason": "tool", "num_blocks": 3},
        finished(7.0, "a"),
        arrived(8.5, "b", prompt_tokens=800, resident_blocks=20, missing_blocks=30),
        finished(9.0, "b", kind="human", tool=""),
    )
    first, second = session.turns
    assert (first.latency_s, first.output_tokens, second.gap_s) == (2.0, 7, 1.5)
    assert (first.ended_by, first.tool_name) == ("tool", "Bash")
    assert (second.ended_by, second.tool_name, second.cached_tokens) == ("human", None, 320)
    assert common_prefix_length(first.block_ids, second.block_ids) == 5


def test_evicted_tokens_are_shared_where_the_log_has_misses(logged: Any) -> None:
    missed = {"event": "missed", "time_s": 8.9, "request": "b", "session": 1, "turn": 2}
    counts = {"cached_tokens": 64, "missed": {"evicted": 512, "mutated": 100, "never_seen": 124}}
    (session,) = logged(
        arrived(5.0, "a"),
        finished(7.0, "a"),
        arrived(8.5, "b", prompt_tokens=800, resident_blocks=4, missing_blocks=46),
        missed | counts,
        finished(9.0, "b"),
    )
    first, second = session.turns
    assert second.cached_tokens == 64
    assert common_prefix_length(first.block_ids, second.block_ids) == (64 + 512) // 64


def test_a_log_may_be_called_so(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    log = DecisionLog(path)
    for one in (arrived(5.0, "a"), finished(7.0, "a")):
        log.write(**one)
    log.close()
    (session,) = read_sessions(path)
    assert len(session.turns) == 1
    with pytest.raises(TraceError, match="no trace file"):
        list(read_sessions(tmp_path))


def test_sessions_arrive_with_their_first_turn(logged: Any) -> None:
    one, other = logged(
        arrived(5.0, "a"),
        arrived(6.0, "b", session=2),
        arrived(6.5, "never ends", session=3),
        finished(7.0, "b", session=2, kind="unknown", tool=""),
        finished(8.0, "a"),
    )
    assert (one.start_s, other.start_s) == (0.0, 1.0)
    assert other.turns[0].ended_by == "unknown"


def test_an_engine_that_starts_again_begins_new_sessions(logged: Any) -> None:
    logged(arrived(50.0, "a"), finished(51.0, "a"))
    one, other = logged(arrived(3.0, "a"), finished(4.0, "a"))
    assert (one.session_id, other.session_id) == ("l-0-1", "l-1-1")
    assert other.start_s == 0.0


def test_turn_end_found_later_is_joined(logged: Any) -> None:
    unknown: dict[str, Any] = {"kind": "unknown", "tool": ""}
    (session,) = logged(
        started(0.5),
        arrived(1.0, "a", turn=1),
        finished(2.0, "a", turn=1, **unknown),
        explained(2.1, turn=1, kind="shell", tool="Bash"),
        arrived(3.0, "b", turn=2),
        finished(4.0, "b", turn=2, **unknown),
        arrived(4.1, "c", turn=3),
        explained(4.2, turn=2, kind="read", tool="Read"),
        finished(5.0, "c", turn=3, **unknown),
        explained(5.1, turn=3, kind="human"),
        explained(5.2, session=9, turn=1, kind="human"),
    )
    ends = [(turn.ended_by, turn.tool_name) for turn in session.turns]
    assert ends == [("tool", "Bash"), ("tool", "Read"), ("human", None)]


def test_engines_that_share_a_log_keep_their_sessions_apart(logged: Any) -> None:
    one, other = {"engine": 0, "pid": 7}, {"engine": 1, "pid": 8}
    sessions = logged(
        started(1.0, **one),
        started(1.1, **other),
        arrived(2.0, "a", **one),
        arrived(2.2, "b", **other),
        finished(2.1, "b", **other),
        finished(3.0, "a", **one),
        arrived(4.0, "c", **one),
        finished(5.0, "c", **one),
    )
    assert sorted(len(session.turns) for session in sessions) == [1, 2]


def test_a_restart_on_the_same_clock_begins_new_sessions(logged: Any) -> None:
    before, after = logged(
        started(1.0, pid=7),
        arrived(2.0, "a", pid=7),
        finished(3.0, "a", pid=7),
        started(60.0, pid=7),
        arrived(61.0, "b", pid=7),
        finished(62.0, "b", pid=7),
    )
    assert (len(before.turns), len(after.turns)) == (1, 1)


def test_log_without_lengths_is_an_error(logged: Any) -> None:
    with pytest.raises(TraceError, match="line 1, prompt_tokens: is missing"):
        logged(arrived(1.0, "a", prompt_tokens=None))
