"""Why a turn waits, on vLLM's own scheduler: each reason made to happen."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from tests.vllm.conftest import Rig, RigMaker

from holdfast.vllm.control.messages import StartReport, StateQuery, StateReport, encode

pytestmark = pytest.mark.engine


def waits(rig: Rig) -> dict[str, StartReport]:
    """Why each session's turn waits, by session id."""
    report = msgspec.msgpack.decode(rig.scheduler(encode(StateQuery())), type=StateReport)
    return {
        str(one.session_id): one.starts_after
        for one in report.sessions
        if one.starts_after is not None
    }


def crowded(make_rig: RigMaker, **shape: object) -> Rig:
    """A cache of 14 blocks, 8 of which a turn fills that runs for long; costs are known."""
    rig = make_rig(14, **shape)
    rig.turn("costs", "uvwxyz", session_id="costs", xargs={"holdfast_final": 1})
    rig.send("running", "abcdefgh", num_outputs=60, session_id="running")
    rig.step()
    return rig


def test_a_large_turn_waits_for_blocks(make_rig: RigMaker) -> None:
    rig = crowded(make_rig)
    rig.send("large", "ABCDEFGH", session_id="large")
    rig.step()
    rig.now_s += 2.0
    wait = waits(rig)["large"]
    assert wait.reason == "blocks" and wait.first_session is None
    assert wait.needed_blocks >= 8 > wait.free_blocks >= 0
    assert wait.waited_s > 2.0 and wait.due_s is not None
    assert waits(rig).keys() == {"large"}  # the one that runs waits for nothing


def test_later_turns_come_after_it(make_rig: RigMaker) -> None:
    """Of its own tenant in order of arrival, of another by what the tenants were served."""
    rig = crowded(make_rig)
    rig.send("large", "ABCDEFGH", session_id="large")
    rig.send("later", "IJKL", session_id="later")
    rig.send("guest", "MNOP", session_id="guest", tenant="other")
    (guest,) = (turn for turn in rig.scheduler._tracker.turns if turn.request_id == "guest")
    guest.tenant.served_s += 100.0
    rig.step()
    numbers = {str(s.identity.session_id): s.number for s in rig.sessions}
    found = {name: (one.reason, one.first_session) for name, one in waits(rig).items()}
    assert found["large"] == ("blocks", None)
    assert found["later"] == ("order", numbers["large"])
    assert found["guest"] == ("tenant", numbers["large"])


def test_its_clients_own_order_holds_a_turn(make_rig: RigMaker) -> None:
    rig = crowded(make_rig)
    rig.send("urgent", "ABCDEFGH", session_id="urgent", xargs={"holdfast_priority": 1})
    rig.send("patient", "IJKLMNOP", session_id="patient", xargs={"holdfast_priority": 5})
    rig.step()
    found = waits(rig)
    assert found["urgent"].reason == "blocks" and found["patient"].reason == "own_order"


def test_a_due_turn_is_passed_by_none(make_rig: RigMaker) -> None:
    rig = crowded(make_rig)
    rig.send("large", "ABCDEFGH", session_id="large")
    rig.step()
    rig.now_s += 1000.0
    rig.send("later", "I", session_id="later", tenant="other")
    rig.step()
    found = waits(rig)
    assert found["large"].reason == "blocks" and found["large"].due_s == 0.0
    assert found["later"].reason == "due"


def test_a_full_batch_is_named(make_rig: RigMaker) -> None:
    rig = make_rig(40, max_num_seqs=1)
    rig.send("running", "abc", num_outputs=60)
    rig.step()
    rig.send("next", "ABC", session_id="next")
    rig.step()
    assert waits(rig)["next"].reason == "slots"


def test_a_turn_that_no_step_has_seen_starts_next(make_rig: RigMaker) -> None:
    rig = make_rig(40)
    rig.send("new", "abc", session_id="new")
    assert waits(rig)["new"].reason == "admitted"


def test_without_our_order_the_engines_queue_decides(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_ADMISSION", "fcfs")
    rig = make_rig(40, max_num_seqs=1)
    rig.send("running", "abc", num_outputs=60)
    rig.step()
    rig.send("next", "ABC", session_id="next")
    rig.step()
    assert waits(rig)["next"].reason == "engine"


def test_the_log_keeps_what_a_turn_waited_for(
    make_rig: RigMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("HOLDFAST_DECISION_LOG", str(log))
    rig = crowded(make_rig)
    rig.send("large", "ABCDEFGH", session_id="large")
    rig.finish()
    rig.scheduler.shutdown()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for event in ("turn_started", "missed"):
        by_request = {one["request"]: one for one in lines if one["event"] == event}
        assert by_request["running"]["delayed_by"] == ""
        assert by_request["large"]["delayed_by"] == "blocks"
        assert by_request["large"]["waited_s"] > by_request["running"]["waited_s"]
    report = msgspec.msgpack.decode(rig.scheduler(encode(StateQuery())), type=StateReport)
    past = {str(one.session_id): one.last_miss for one in report.sessions}
    assert past["large"] is not None and past["large"].delayed_by == "blocks"
    assert past["large"].output_tokens == 8 and past["large"].gap_s == 0.0


def test_the_state_has_what_a_planner_needs(make_rig: RigMaker) -> None:
    rig = make_rig(40)
    first = rig.turn("r1", "abcd", session_id="s")
    rig.now_s += 4.0
    rig.turn("r2", rig.following(first, "u"), session_id="s")
    report = msgspec.msgpack.decode(rig.scheduler(encode(StateQuery())), type=StateReport)
    engine, (session,) = report.engine, report.sessions
    assert engine.cache_tokens == 40 * 16 and engine.block_tokens == 16
    assert engine.costs is not None and engine.costs.prefill_s_per_token > 0
    assert engine.host_tokens == 0 and engine.max_running > 0 and engine.max_step_tokens > 0
    assert session.last_miss is not None and session.last_miss.gap_s == pytest.approx(5.0, abs=0.2)
