"""The wait bound: twice, say, the engine time of the turns that a turn finds ahead of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.runtime.wait_bound import WaitBound


def turn(arrived_s: float = 0.0) -> Turn:
    node: Node[Any] = Node(None, 0, [])
    session = Session(0, None, SessionState.WAITING, node, node)
    return Turn("r", session, 0, 0, arrived_s=arrived_s)


def enter(bound: WaitBound, cold_s: float, arrived_s: float = 0.0) -> Turn:
    entered = turn(arrived_s)
    bound.enter(entered, cold_s)
    return entered


def test_first_turn_is_bound_by_its_own_time() -> None:
    assert enter(WaitBound(2.0), 3.0, arrived_s=10.0).due_s == 10.0 + 2 * 3.0


def test_turn_is_bound_by_all_that_it_finds() -> None:
    bound = WaitBound(1.5)
    enter(bound, 4.0)
    assert enter(bound, 6.0, arrived_s=1.0).due_s == 1.0 + 1.5 * (4.0 + 6.0)


def test_running_turn_counts_half() -> None:
    bound = WaitBound(1.0)
    bound.start(running := enter(bound, 4.0))
    assert running.outstanding_s == 2.0
    assert enter(bound, 1.0).due_s == 2.0 + 1.0


def test_preempted_turn_counts_in_full_again() -> None:
    bound = WaitBound(1.0)
    preempted = enter(bound, 4.0)
    due_s = preempted.due_s
    bound.start(preempted)
    bound.preempt(preempted)
    assert preempted.due_s == due_s  # its own bound stays
    assert enter(bound, 1.0).due_s == 4.0 + 1.0


def test_ended_turn_counts_no_more() -> None:
    bound = WaitBound(1.0)
    ended, aborted = enter(bound, 4.0), enter(bound, 8.0)
    bound.start(ended)
    for leaving in (ended, aborted, aborted):
        bound.leave(leaving)
    assert enter(bound, 1.0).due_s == 1.0


def test_later_turns_do_not_move_an_earlier_bound() -> None:
    bound = WaitBound(2.0)
    first = enter(bound, 3.0)
    enter(bound, 100.0)
    assert first.due_s == 6.0


def test_turn_is_due_from_its_bound_on() -> None:
    waiting = enter(WaitBound(2.0), 3.0)
    assert not waiting.is_due(5.999)
    assert waiting.is_due(6.0)


def test_turns_are_due_at_once_before_costs_are_known() -> None:
    bound = WaitBound(2.0)
    assert [enter(bound, 0.0, arrived_s).due_s for arrived_s in (1.0, 2.0)] == [1.0, 2.0]


def test_target_makes_a_turn_due_in_time_to_compute_its_prompt() -> None:
    bound = WaitBound(2.0, ttft_target_s=10.0)
    assert enter(bound, 3.0, arrived_s=1.0).due_s == 1.0 + 2 * 3.0
    assert enter(bound, 4.0, arrived_s=1.0).due_s == 1.0 + 10.0 - 4.0


def test_turn_longer_than_the_target_is_due_at_once() -> None:
    assert enter(WaitBound(2.0, ttft_target_s=10.0), 11.0, arrived_s=1.0).due_s == 1.0


@given(st.lists(st.floats(0.0, 100.0), max_size=10), st.floats(0.1, 200.0))
def test_target_only_brings_bounds_forward(colds_s: list[float], target_s: float) -> None:
    """A turn is never due later than without a target, nor before it arrives."""
    plain, aimed = WaitBound(2.0), WaitBound(2.0, target_s)
    for cold_s in colds_s:
        without, with_target = enter(plain, cold_s, 5.0), enter(aimed, cold_s, 5.0)
        assert 5.0 <= with_target.due_s <= without.due_s
        assert with_target.due_s <= 5.0 + target_s


def test_cleared_bound_counts_no_turn() -> None:
    bound = WaitBound(1.0)
    enter(bound, 4.0)
    bound.clear()
    assert enter(bound, 1.0).due_s == 1.0


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.sampled_from("wrpe")), max_size=20))
def test_bound_is_the_sum_of_what_is_outstanding(turns: list[tuple[float, str]]) -> None:
    """Each turn waits, runs, waits again or has ended."""
    bound, outstanding_s = WaitBound(1.0), 0.0
    for cold_s, outcome in turns:
        entered = enter(bound, cold_s)
        if outcome in "rpe":
            bound.start(entered)
        if outcome == "p":
            bound.preempt(entered)
        if outcome == "e":
            bound.leave(entered)
        outstanding_s += {"w": cold_s, "r": cold_s / 2, "p": cold_s, "e": 0.0}[outcome]
    assert enter(bound, 1.0).due_s == pytest.approx(outstanding_s + 1.0)
