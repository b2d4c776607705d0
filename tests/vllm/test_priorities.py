"""Request priorities in eviction and reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = pytest.mark.engine


def _flood(rig: Rig, priority: int, num_turns: int = 12) -> None:
    """Take turns of three-block sessions, far more than fit into the cache."""
    for number in range(num_turns):
        rig.turn(f"flood {priority} {number}", f"{chr(65 + number)}bc", priority=priority)


@pytest.mark.parametrize(("urgent", "other"), [(0, 10), (-3, 0), (-(2**40), -(2**39)), (1, 2)])
def test_urgent_prefix_evicted_after_less_urgent_work(
    make_rig: RigMaker, urgent: int, other: int
) -> None:
    rig = make_rig(20, scheduling_policy="priority")
    rig.turn("urgent", "uvwxyz", priority=urgent)
    rig.now_s += 100.0
    _flood(rig, other)
    assert rig.num_cached("uvwxyz") == 6


def test_priorities_ignored_under_fcfs(make_rig: RigMaker) -> None:
    rig = make_rig(20)
    rig.turn("urgent", "uvwxyz", priority=0)
    rig.now_s += 100.0
    _flood(rig, 10)
    assert rig.num_cached("uvwxyz") < 6
    assert {session.priority for session in rig.sessions} == {None}


def test_urgent_turn_evicts_less_urgent_blocks_first(make_rig: RigMaker) -> None:
    rig = make_rig(20, scheduling_policy="priority")
    rig.turn("urgent", "uvwxyz", priority=0)
    rig.now_s += 100.0
    rig.turn("other", "klmnop", priority=5)
    _flood(rig, 0, num_turns=3)
    assert rig.num_cached("uvwxyz") == 6
    assert rig.num_cached("klmnop") < 6


def test_less_urgent_turn_runs_when_nothing_else_can(make_rig: RigMaker) -> None:
    rig = make_rig(20, scheduling_policy="priority")
    rig.turn("urgent", "abcdefghijklmno", priority=0)
    rig.turn("other", "ABCDEFGHIJ", priority=9)
    assert len(rig.requests["other"].output_token_ids) == 8
    assert rig.num_cached("abcdefghijklmno") >= 9


def test_due_less_urgent_turn_admitted_beside_running_ones(
    make_rig: RigMaker,
) -> None:
    rig = make_rig(24, scheduling_policy="priority")
    rig.turn("costs", "ABCDEF", priority=9)
    rig.turn("urgent", "abcdefghijklmn", priority=0)
    rig.send("running", "uvw", priority=0, num_outputs=60)
    rig.step()
    rig.send("other", "ABCDEFGHIJ", priority=9)
    rig.step()
    assert "other" not in rig.started
    rig.now_s += 100.0
    rig.step()
    assert "other" in rig.started


def test_shared_prefix_has_its_most_urgent_priority(make_rig: RigMaker) -> None:
    rig = make_rig(24, scheduling_policy="priority")
    rig.turn("other", "sharedX", priority=9)
    rig.turn("urgent", "sharedY", priority=0)
    rig.now_s += 100.0
    _flood(rig, 9)
    assert rig.num_cached("sharedY") == 7
    assert rig.num_cached("sharedX") == 6


def test_urgent_turn_takes_less_urgent_reservation(make_rig: RigMaker) -> None:
    rig = make_rig(22, scheduling_policy="priority")
    rig.turn("costs", "ABCDEF", priority=9)
    rig.send("other", "abcdefghijkl", priority=9)
    rig.finish()  # no time passes
    rig.send("running", "uvw", priority=0, num_outputs=60)
    rig.step()
    rig.send("urgent", "ABCDEFGHIJ", priority=0)
    rig.step()
    assert "urgent" in rig.started


def test_closed_urgent_session_retains_nothing(make_rig: RigMaker) -> None:
    rig = make_rig(20, scheduling_policy="priority")
    rig.turn("urgent", "uvwxyz", priority=0, xargs={"holdfast_final": 1})
    rig.turn("other", "klm", priority=9)
    rig.turn("large", "1234567890ab", priority=9)
    assert rig.num_cached("uvwxyz") < 6
    assert rig.num_cached("klm") == 3
