"""Metrics and decision log of the scheduler."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.core.session import SessionState
from holdfast.tool_calls.turn_end import ToolCall, TurnEnd
from holdfast.vllm.eviction_meter import watch_evictions
from holdfast.vllm.metrics import EngineMetrics

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine


def _press(rig: Rig) -> None:
    """Run sessions, forks and a reset in a cache too small for them."""
    for turn in range(4):
        for number in range(6):
            rig.send(f"{number}.{turn}", f"s{number}abc" + "uvwx"[:turn], num_outputs=30)
            rig.send(f"fork {number}.{turn}", f"s{number}a{turn}", num_outputs=5)
            rig.step()
        rig.finish()
        if turn == 1:
            rig.scheduler.reset_prefix_cache()


@pytest.mark.parametrize("settings", [{}, {"eviction": "lru"}, {"admission": "fcfs"}])
def test_evictions_counted_as_vllm_makes_them(
    make_rig: RigMaker, settings: dict[str, object]
) -> None:
    rig = make_rig(24, settings=settings)
    evicted: list[Any] = []
    watch_evictions(rig.scheduler.kv_cache_manager.block_pool, evicted.append)
    _press(rig)
    assert rig.num_evicted == len(evicted) > 0


def test_no_evictions_in_a_large_cache(rig: Rig) -> None:
    for number in range(5):
        rig.turn(str(number), f"ab{number}")
    assert rig.num_evicted == 0


def test_admissions_reuse_and_steps_are_counted(rig: Rig) -> None:
    first = rig.turn("1", "abcd", num_outputs=13)
    rig.turn("2", rig.following(first, "e"), num_outputs=1)
    metrics = rig.metrics
    assert metrics["holdfast_admissions"] == 2
    assert metrics["holdfast_reused_blocks"] == 5
    assert metrics["holdfast_engine_steps"] == 14
    assert 0 < metrics["holdfast_decision_seconds"] < metrics["holdfast_scheduler_seconds"]
    assert not any(name.startswith("holdfast_fallbacks") for name in metrics)


def test_wait_is_measured_on_the_schedulers_clock(make_rig: RigMaker) -> None:
    rig = make_rig(50, max_num_seqs=1)
    rig.send("1", "ab", num_outputs=20)
    rig.send("2", "cd")
    rig.step()
    began_s = rig.now_s
    while "2" not in rig.started:
        rig.step()
    waited_s = rig.scheduler._metrics._wait_sum_s
    assert began_s < waited_s < rig.now_s


def test_sessions_are_counted_by_state(rig: Rig) -> None:
    rig.turn("0", "ab", xargs={"holdfast_turn_end": "human"})
    rig.turn("1", "cd")
    rig.send("2", "ef", num_outputs=300)
    for _ in range(256):
        rig.step()
    states = {k.removeprefix("holdfast_sessions/"): v for k, v in rig.metrics.items()}
    assert (states["running"], states["at_tool"], states["human_away"]) == (1, 1, 1)


def test_gauges_follow_an_idle_engine(rig: Rig) -> None:
    rig.turn("0", "ab", xargs={"holdfast_turn_end": "human"})
    rig.turn("1", "cd")
    states = {k.removeprefix("holdfast_sessions/"): v for k, v in rig.metrics.items()}
    assert (states["running"], states["at_tool"], states["human_away"]) == (0, 1, 1)
    session = next(s for s in rig.sessions if s.state is SessionState.AT_TOOL)
    rig.scheduler._reader.answers._findings.append(((session, 1), TurnEnd("human")))
    assert rig.metrics["holdfast_sessions/human_away"] == 2
    assert session.state is SessionState.AT_TOOL


def test_gauges_are_set_while_the_engine_sleeps(tmp_path: Path) -> None:
    metrics = EngineMetrics(tmp_path)
    asked = threading.Event()
    metrics.watch(asked.set)
    assert asked.wait(60.0)
    metrics.close()


def test_gauges_are_zero_after_fallback(make_rig: RigMaker) -> None:
    rig = make_rig(12, is_strict=False)
    rig.turn("0", "ab")
    for number in range(3):
        rig.send(f"queued {number}", f"{number}tuvwxyz")
    rig.step()
    assert rig.metrics["holdfast_requests_held"] > 0
    rig.scheduler._runtime.tick = None
    rig.step()
    gauges = {k: v for k, v in rig.metrics.items() if k.startswith("holdfast_sessions/")}
    assert set(gauges.values()) == {0}
    assert rig.metrics["holdfast_requests_held"] == 0


def _records(path: Path, event: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if record["event"] == event]


def test_log_records_turn_end_when_found(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    rig = make_rig(24, settings={"decision_log": path})
    rig.turn("0", "ab")
    rig.turn("1", "cd")
    (session, _) = rig.sessions
    calls = (ToolCall("Bash", '{"command": "make"}'),)
    rig.scheduler._reports.pause_explained((session, 1), TurnEnd("tool", calls))
    rig.scheduler.shutdown()
    (record,) = _records(path, "pause_explained")
    ended = _records(path, "turn_ended")[0]
    assert (record["kind"], record["tool"]) == ("shell", "Bash")
    assert (record["session"], record["turn"]) == (ended["session"], ended["turn"])


def test_log_records_engine_and_explicit_session_id(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    rig = make_rig(24, settings={"decision_log": path})
    rig.turn("0", "ab", session_id="mine", tenant="salt")
    rig.turn("1", "cd")
    rig.scheduler.shutdown()
    (start,) = _records(path, "engine_started")
    assert (start["engine"], start["pid"]) == (0, os.getpid())
    arrived = _records(path, "turn_arrived")
    assert [record["session_id"] for record in arrived] == ["mine", None]
    assert all(record["engine"] == 0 for record in arrived)


def test_log_names_sessions_of_evicted_blocks(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    rig = make_rig(40, settings={"decision_log": path})
    for number in range(20):
        rig.turn(str(number), f"shared{chr(65 + number)}", num_outputs=1)
    rig.turn("large", "0123456789" * 3 + "012345678", num_outputs=1)
    rig.scheduler.shutdown()
    evicted = _records(path, "evicted")
    assert all(record["sessions"] for record in evicted)
    most = max(evicted, key=lambda record: int(record["num_sessions"]))
    assert (most["reason"], most["num_sessions"], len(most["sessions"])) == ("prefix", 20, 16)


def test_log_records_each_turn_and_eviction(make_rig: RigMaker, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    rig = make_rig(24, settings={"decision_log": path})
    _press(rig)
    rig.turn("bad hint", "z", xargs={"session_id": ""})
    rig.scheduler.shutdown()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    by_event: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_event.setdefault(record["event"], []).append(record)

    # A request that waits during a reset arrives again.
    assert {r["request"] for r in by_event["turn_arrived"]} == rig.requests.keys()
    assert {r["request"] for r in by_event["turn_started"]} == rig.requests.keys()
    assert len(by_event["turn_ended"]) == len(rig.requests)
    assert sum(r["num_blocks"] for r in by_event["evicted"]) <= rig.num_evicted
    assert {r["reason"] for r in by_event["evicted"]} <= {"closed", "tool", "prefix", "human"}
    assert by_event["place_taken"]
    assert by_event["turn_arrived"][-1]["rejected"]
    times = [record["time_s"] for record in records]
    assert times == sorted(times)


def test_no_file_without_a_decision_log(
    make_rig: RigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _press(make_rig(24))
    assert list(tmp_path.iterdir()) == []


def test_agent_that_waits_for_three_of_five_is_reported(make_rig: RigMaker, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    rig = make_rig(100, settings={"decision_log": log})
    rig.turn("root", "ab", session_id="root", xargs={"holdfast_turn_end": "tool:Task"})
    for number in range(5):
        xargs: dict[str, Any] = {"holdfast_parent_session_id": "root"}
        if number < 2:
            xargs["holdfast_turn_end"] = "human"
        rig.turn(f"{number}", f"{number}xy", session_id=f"child {number}", xargs=xargs)
    assert rig.metrics["holdfast_sessions/waiting_for_agents"] == 1
    assert rig.metrics["holdfast_answered_streams/sub_agent"] == 2
    rig.turn("back", rig.following(rig.requests["root"], "c"), session_id="root")
    assert rig.metrics["holdfast_sessions/waiting_for_agents"] == 0
    rig.scheduler._reports.close()
    lines = [r["waits_for"] for r in _records(log, "waits_for_agents")]
    assert lines[0] == "1 of 1" and lines[-1] == "3 of 5"


def test_side_calls_are_counted(rig: Rig) -> None:
    rig.turn("0", "ab", xargs={"holdfast_side_call": True})
    assert rig.metrics["holdfast_answered_streams/side_call"] == 1
    assert rig.metrics["holdfast_sessions/closed"] == 1
