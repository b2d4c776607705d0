from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.chains import Segment
from holdfast.core.sessions import Session, SessionState
from holdfast.policies.admission.waiting import Decision, Room, WaitingTurn
from holdfast.policies.admission.working_set import WorkingSet


def session(number: int) -> Session:
    segment: Segment[Any] = Segment(None, 0, [])
    return Session(number, None, SessionState.WAITING, segment, segment)


def turn(
    number: int,
    *,
    needs: int,
    missing: int | None = None,
    limit: int = 10,
    passed: int = 0,
    due_s: float = math.inf,
) -> WaitingTurn:
    return WaitingTurn(
        f"r{number}",
        session(number),
        0,
        number,
        limit,
        due_s=due_s,
        num_pass_overs=passed,
        missing_blocks=needs if missing is None else missing,
        room_blocks=needs,
    )


def room(
    blocks: int,
    *,
    running: int = 1,
    slots: int = 100,
    places: Sequence[tuple[int, float]] = (),
    restore_s: float = 1.0,
) -> Room:
    """Room with places given as (blocks freed, expected seconds away), first to go first."""
    held = {session(1000 + i): place for i, place in enumerate(places)}
    return Room(
        now_s=100.0,
        blocks=blocks,
        slots=slots,
        num_running=running,
        restore_s=lambda session, num_blocks: num_blocks * restore_s,
        places=lambda: list(held),
        freed_by=lambda s: held[s][0],
        away_s=lambda s: held[s][1],
    )


def offered(decision: Decision) -> list[str]:
    return [t.request_id for t in decision.offers]


def test_what_fits_is_offered_in_order_of_arrival() -> None:
    decision = WorkingSet().decide([turn(1, needs=9), turn(2, needs=1)], room(10))
    assert offered(decision) == ["r1", "r2"]


def test_past_the_room_fewest_missing_blocks_go_first() -> None:
    decision = WorkingSet().decide([turn(1, needs=9), turn(2, needs=3)], room(10))
    assert offered(decision) == ["r2"]


def test_a_due_turn_goes_first_and_lets_no_later_turn_pass() -> None:
    waiting = [turn(1, needs=20, passed=10), turn(2, needs=1)]
    assert offered(WorkingSet().decide(waiting, room(10))) == []


def test_a_turn_that_has_waited_for_its_time_goes_first() -> None:
    small = turn(2, needs=1)
    assert offered(WorkingSet().decide([turn(1, needs=20, due_s=100.1), small], room(10))) == ["r2"]
    assert offered(WorkingSet().decide([turn(1, needs=20, due_s=100.0), small], room(10))) == []
    assert offered(WorkingSet().decide([turn(1, needs=9, due_s=99.0), small], room(9))) == ["r1"]


def test_a_due_turn_may_take_every_place() -> None:
    waiting = [turn(1, needs=20, passed=10)]
    decision = WorkingSet().decide(waiting, room(10, places=[(5, 0.1), (5, 0.1)]))
    assert offered(decision) == ["r1"]
    assert len(decision.releases) == 2


def test_a_place_is_taken_only_from_who_is_away_much_longer_than_the_recomputation() -> None:
    # Five blocks at one second each: 5 s to recompute, and three times that is the limit.
    staying = WorkingSet().decide([turn(1, needs=12)], room(10, places=[(5, 14.9)]))
    leaving = WorkingSet().decide([turn(1, needs=12)], room(10, places=[(5, 15.1)]))
    assert (offered(staying), staying.releases) == ([], [])
    assert offered(leaving) == ["r1"]
    assert len(leaving.releases) == 1


def test_places_are_kept_when_taking_them_would_not_be_enough() -> None:
    decision = WorkingSet().decide([turn(1, needs=30)], room(10, places=[(5, 100.0)]))
    assert (offered(decision), decision.releases) == ([], [])


def test_an_idle_engine_is_always_given_a_turn() -> None:
    decision = WorkingSet().decide([turn(1, needs=500), turn(2, needs=400)], room(0, running=0))
    assert offered(decision) == ["r2"]


def test_no_more_turns_are_offered_than_slots() -> None:
    waiting = [turn(i, needs=1) for i in range(5)]
    assert len(WorkingSet().decide(waiting, room(100, slots=2)).offers) == 2


def test_explicit_priority_comes_before_everything() -> None:
    urgent = turn(2, needs=8)
    urgent.priority = -1
    assert offered(WorkingSet().decide([turn(1, needs=3), urgent], room(10))) == ["r2"]


def test_the_same_code_is_right_at_any_speed() -> None:
    """Scaling every duration by the same factor changes no decision."""
    for scale in (0.02, 1.0, 50.0):
        here = room(10, places=[(5, 15.1 * scale)], restore_s=scale)
        assert offered(WorkingSet().decide([turn(1, needs=12)], here)) == ["r1"]


@given(st.floats(0.5, 4.0), st.integers(2, 30))
def test_nobody_waits_past_its_time_while_it_fits(due_s: float, num_others: int) -> None:
    """Others that are served each second for ever cannot keep out a turn that is due."""
    policy, late = WorkingSet(), turn(0, needs=8, due_s=100.0 + due_s)
    for step in range(10):
        here = room(10)
        here.now_s = 100.0 + step
        others = [turn(1 + step * num_others + i, needs=2) for i in range(num_others)]
        decision = policy.decide([late, *others], here)
        if late in decision.offers:
            break
    assert step == math.ceil(due_s)


turns = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 12)).map(lambda t: t), min_size=1, max_size=12
)


@given(
    turns,
    st.integers(-5, 40),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 10), st.floats(0, 100)), max_size=6),
)
def test_offers_fit_unless_the_engine_would_be_idle(
    needs: list[tuple[int, int]], blocks: int, running: int, places: list[tuple[int, float]]
) -> None:
    waiting = [turn(i, needs=n, passed=p) for i, (n, p) in enumerate(needs)]
    here = room(blocks, running=running, places=places)
    decision = WorkingSet().decide(waiting, here)
    gained = sum(here.freed_by(s) for s in decision.releases)
    taken = sum(t.room_blocks for t in decision.offers)
    is_lone_turn_of_idle_engine = running == 0 and len(decision.offers) == 1
    assert not taken or taken <= blocks + gained or is_lone_turn_of_idle_engine
    assert decision.offers or running > 0
    assert len(set(map(id, decision.releases))) == len(decision.releases)


@given(st.integers(1, 8), st.integers(20, 60))
def test_nobody_is_passed_over_more_often_than_the_bound(limit: int, large: int) -> None:
    """A large turn waits while small ones keep coming; each step one runs and leaves."""
    policy = WorkingSet()
    waiting = [turn(0, needs=large, limit=limit)]
    number = 1
    for _ in range(200):
        waiting.append(turn(number, needs=1, limit=limit))
        number += 1
        decision = policy.decide(waiting, room(10, running=0))
        first = decision.offers[0]
        if first.sequence == 0:
            break
        waiting.remove(first)
        for other in waiting:
            other.num_pass_overs += other.sequence < first.sequence
    assert waiting[0].num_pass_overs <= limit
    assert first.sequence == 0
