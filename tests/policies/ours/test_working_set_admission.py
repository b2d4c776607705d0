"""Working-set admission: what fits beside reservations, warm turns first, and the wait bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.ours.working_set_admission import WorkingSetAdmission
from holdfast.predict.step_cost import StepCostModel
from holdfast.runtime.context import RuntimeContext

NOW_S = 100.0


def policy() -> WorkingSetAdmission:
    context = RuntimeContext("never", None, None)
    context._now_s = NOW_S
    return WorkingSetAdmission(context)


POLICY = policy()


class Costs(StepCostModel):
    """A second for each block; decoding shares as many as given."""

    def __init__(self, shared_s: float) -> None:
        super().__init__()
        self.shared_s = shared_s

    def prefill_s(self, num_tokens: float, context_tokens: float = 0.0) -> float:
        return num_tokens

    @property
    def shared_decode_s(self) -> float:
        return self.shared_s


def decode_bound(shared_s: float) -> WorkingSetAdmission:
    """A policy on an engine whose steps cost a turn so much, however many decode."""
    deciding = policy()
    deciding.context.costs = Costs(shared_s)
    return deciding


def session(number: int) -> Session:
    node: Node[Any] = Node(None, 0, [])
    return Session(number, None, SessionState.WAITING, node, node)


def turn(
    number: int,
    *,
    needs: int,
    missing: int | None = None,
    resident: int = 0,
    due_s: float = math.inf,
) -> Turn:
    return Turn(
        f"r{number}",
        session(number),
        0,
        number,
        due_s=due_s,
        resident_blocks=resident,
        missing_blocks=needs if missing is None else missing,
        demand_blocks=needs,
    )


def budget_of(
    blocks: int,
    *,
    running: int = 1,
    slots: int = 100,
    reserved: Sequence[tuple[int, float]] = (),
    now_s: float = NOW_S,
    restore_s: float = 1.0,
    growth: int = 0,
) -> Budget:
    """A budget with reservations as (blocks freed, seconds idle), first to go first."""
    idle = {session(1000 + i): reservation for i, reservation in enumerate(reserved)}
    for one, (_, idle_s) in idle.items():
        one.paused_at_s = NOW_S - idle_s
    return Budget(
        now_s=now_s,
        blocks=blocks,
        growth_blocks=growth,
        slots=slots,
        num_running=running,
        restore_s=lambda session, num_blocks: num_blocks * restore_s,
        reservations=lambda: list(idle),
        freed_by=lambda s: idle[s][0],
    )


def ids(decision: Admission) -> list[str]:
    return [t.request_id for t in decision.admitted]


def test_turns_that_all_fit_go_by_arrival() -> None:
    decision = POLICY.admit([turn(1, needs=9), turn(2, needs=1)], budget_of(10))
    assert ids(decision) == ["r1", "r2"]


def test_warm_turns_with_fewest_missing_blocks_go_first() -> None:
    waiting = [
        turn(1, needs=5),
        turn(2, needs=5, missing=4, resident=50),
        turn(3, needs=5, missing=2, resident=50),
    ]
    assert ids(POLICY.admit(waiting, budget_of(10))) == ["r3", "r2"]


def test_cold_turn_holds_back_cold_turns_but_no_warm_ones() -> None:
    waiting = [turn(1, needs=20), turn(2, needs=2), turn(3, needs=3, missing=1, resident=9)]
    assert ids(POLICY.admit(waiting, budget_of(10))) == ["r3"]


def test_cold_turns_go_by_arrival_not_by_size() -> None:
    assert ids(POLICY.admit([turn(1, needs=9), turn(2, needs=3)], budget_of(10))) == ["r1"]


def test_no_turn_passes_a_due_turn() -> None:
    waiting = [turn(1, needs=20, due_s=99.0), turn(2, needs=1, missing=0, resident=1)]
    assert ids(POLICY.admit(waiting, budget_of(10))) == []


def test_turn_is_due_from_the_end_of_its_wait_bound() -> None:
    small = turn(2, needs=1, missing=1, resident=5)
    assert ids(POLICY.admit([turn(1, needs=20, due_s=100.1), small], budget_of(10))) == ["r2"]
    assert ids(POLICY.admit([turn(1, needs=20, due_s=100.0), small], budget_of(10))) == []
    assert ids(POLICY.admit([turn(1, needs=9, due_s=99.0), small], budget_of(9))) == ["r1"]


def test_due_turn_may_take_every_reservation() -> None:
    waiting = [turn(1, needs=20, due_s=99.0)]
    decision = POLICY.admit(waiting, budget_of(10, reserved=[(5, 0.1), (5, 0.1)]))
    assert ids(decision) == ["r1"]
    assert len(decision.released) == 2


def test_reservation_released_once_dearer_than_recomputing() -> None:
    # Five blocks at one second each; one turn waits beside three that run: (1 + 3 / 1) * 5 s.
    staying = POLICY.admit([turn(1, needs=12)], budget_of(10, running=3, reserved=[(5, 19.9)]))
    leaving = POLICY.admit([turn(1, needs=12)], budget_of(10, running=3, reserved=[(5, 20.1)]))
    assert (ids(staying), staying.released) == ([], [])
    assert ids(leaving) == ["r1"]
    assert len(leaving.released) == 1


def test_reservation_released_sooner_while_more_turns_wait() -> None:
    # Three wait beside three: (1 + 3 / 3) * 5 s.
    waiting = [turn(i, needs=12) for i in range(1, 4)]
    decision = POLICY.admit(waiting, budget_of(10, running=3, reserved=[(5, 10.1)]))
    assert ids(decision) == ["r1"]


def test_reservations_kept_where_they_would_not_suffice() -> None:
    decision = POLICY.admit([turn(1, needs=30)], budget_of(10, reserved=[(5, 100.0)]))
    assert (ids(decision), decision.released) == ([], [])


@pytest.mark.parametrize(("shared_s", "is_admitted"), [(12.1, True), (11.9, False)])
def test_turn_borrows_growth_where_recomputing_it_is_cheap(
    shared_s: float, *, is_admitted: bool
) -> None:
    waiting = turn(1, needs=12)
    waiting.footprint_blocks = 12  # to compute again if it is preempted: 12 s
    decision = decode_bound(shared_s).admit([waiting], budget_of(5, growth=7))
    assert ids(decision) == (["r1"] if is_admitted else [])


def test_turn_borrows_only_blocks_that_are_free_now() -> None:
    first, second = turn(1, needs=12), turn(2, needs=12)
    decision = decode_bound(1000.0).admit([first, second], budget_of(5, growth=18))
    assert ids(decision) == []
    first.footprint_blocks = second.footprint_blocks = 12
    decision = decode_bound(1000.0).admit([first, second], budget_of(5, growth=18))
    assert ids(decision) == ["r1"]


def test_reservation_that_saves_little_is_released_at_once() -> None:
    budget = budget_of(10, reserved=[(5, 0.1)])  # five blocks: 5 s
    kept = decode_bound(4.9).admit([turn(1, needs=12)], budget)
    assert (ids(kept), kept.released) == ([], [])
    released = decode_bound(5.1).admit([turn(1, needs=12)], budget)
    assert (ids(released), len(released.released)) == (["r1"], 1)


def test_savings_of_reservations_add_up() -> None:
    budget = budget_of(0, reserved=[(5, 0.1), (5, 0.1)])
    assert not decode_bound(9.9).admit([turn(1, needs=10)], budget).released
    assert len(decode_bound(10.1).admit([turn(1, needs=10)], budget).released) == 2


def test_idle_engine_is_always_given_a_turn() -> None:
    decision = POLICY.admit([turn(1, needs=500), turn(2, needs=400)], budget_of(0, running=0))
    assert ids(decision) == ["r1"]


def test_no_more_turns_admitted_than_slots() -> None:
    waiting = [turn(i, needs=1) for i in range(5)]
    assert len(POLICY.admit(waiting, budget_of(100, slots=2)).admitted) == 2


def test_explicit_priority_comes_before_everything() -> None:
    urgent = turn(2, needs=8)
    urgent.priority = -1
    assert ids(POLICY.admit([turn(1, needs=3), urgent], budget_of(10))) == ["r2"]


@pytest.mark.parametrize(
    ("priority", "due_s", "released"),
    [
        (0, math.inf, 1),  # more urgent: at once, though it has been idle for 0.1 s only
        (1, math.inf, 0),  # as urgent: not before 2 * 5 s
        (2, math.inf, 0),  # less urgent: never before it is due
        (2, 99.0, 1),
    ],
)
def test_urgent_turn_takes_a_less_urgent_reservation_at_once(
    priority: int, due_s: float, released: int
) -> None:
    budget = budget_of(10, reserved=[(5, 0.1)])
    (idle,) = budget.reservations()
    idle.priority = 1
    wanting = turn(1, needs=12, due_s=due_s)
    wanting.priority = priority
    decision = POLICY.admit([wanting], budget)
    assert (len(decision.admitted), len(decision.released)) == (released, released)


def test_less_urgent_turn_leaves_an_overdue_reservation() -> None:
    budget = budget_of(10, reserved=[(5, 1000.0)])
    (idle,) = budget.reservations()
    idle.priority = 1
    for priority, num_released in ((2, 0), (1, 1)):
        wanting = turn(1, needs=12)
        wanting.priority = priority
        assert len(POLICY.admit([wanting], budget).released) == num_released


def test_preempted_turn_goes_first_where_all_fit() -> None:
    preempted = turn(2, needs=3)
    preempted.was_running = True
    assert ids(POLICY.admit([turn(1, needs=3), preempted], budget_of(10))) == ["r2", "r1"]


def test_preempted_turn_goes_before_warm_ones_where_not_all_fit() -> None:
    preempted, warm = turn(2, needs=8), turn(1, needs=3, missing=1, resident=9)
    preempted.was_running = True
    assert ids(POLICY.admit([warm, preempted], budget_of(10))) == ["r2"]


def test_cold_turn_of_the_least_served_tenant_goes_first() -> None:
    served, other = turn(1, needs=8), turn(2, needs=8)
    served.tenant.served_s, other.tenant.served_s = 3.0, 1.0
    assert ids(POLICY.admit([served, other], budget_of(10))) == ["r2"]


def test_one_decision_releases_at_most_sixty_four_reservations() -> None:
    budget = budget_of(0, reserved=[(1, 100.0)] * 70)
    assert len(POLICY.admit([turn(1, needs=64)], budget).released) == 64
    assert not POLICY.admit([turn(1, needs=65)], budget).released


def test_no_more_reservations_released_than_needed() -> None:
    budget = budget_of(10, reserved=[(3, 100.0), (3, 100.0), (3, 100.0)])
    first, second, _ = budget.reservations()
    # 16 blocks are needed, 10 are free: two of three.
    assert list(POLICY.admit([turn(1, needs=16)], budget).released) == [first, second]


def test_reservations_idle_too_shortly_are_passed_over() -> None:
    budget = budget_of(10, reserved=[(3, 5.9), (3, 6.1)])
    # One turn runs and one waits: a reservation of three blocks is released after 2 * 3 s.
    _, overdue = budget.reservations()
    assert list(POLICY.admit([turn(1, needs=13)], budget).released) == [overdue]


def test_two_turns_do_not_share_a_released_reservation() -> None:
    budget = budget_of(0, reserved=[(5, 100.0)])
    decision = POLICY.admit([turn(1, needs=5), turn(2, needs=5)], budget)
    assert ids(decision) == ["r1"]
    assert len(decision.released) == 1


def test_decisions_do_not_depend_on_the_time_scale() -> None:
    """Scaling every duration by the same factor changes no decision."""
    for scale in (0.02, 1.0, 50.0):
        here = budget_of(10, reserved=[(5, 10.1 * scale)], restore_s=scale)
        assert ids(POLICY.admit([turn(1, needs=12)], here)) == ["r1"]


@given(st.floats(0.5, 4.0), st.integers(2, 30))
def test_no_turn_that_fits_waits_past_its_wait_bound(due_s: float, num_others: int) -> None:
    """Warm turns that come each second do not keep out one that is due."""
    late = turn(0, needs=8, due_s=100.0 + due_s)
    for step in range(10):
        here = budget_of(10, now_s=NOW_S + step)
        others = [turn(1 + step * num_others + i, needs=2, resident=20) for i in range(num_others)]
        decision = POLICY.admit([late, *others], here)
        if late in decision.admitted:
            break
    assert step == math.ceil(due_s)


@given(st.integers(1, 30), st.integers(0, 5))
def test_due_turn_waits_only_for_running_and_older_due_turns(
    needs: int, num_due_before: int
) -> None:
    """Each second one running turn ends; its blocks, or its reservation, are the due turn's."""
    waiting = [turn(i, needs=needs, due_s=99.0) for i in range(num_due_before + 1)]
    num_running, started = 4, []
    for step in range(4 + num_due_before):
        waiting += [turn(100 + step, needs=1, missing=0, resident=9)]
        free = needs * (4 - num_running)
        decision = POLICY.admit(waiting, budget_of(free, running=num_running))
        assert all(t.due_s == 99.0 for t in decision.admitted) or not any(
            t.due_s == 99.0 for t in waiting if t not in decision.admitted
        )
        started += [t for t in decision.admitted if t.due_s == 99.0]
        waiting = [t for t in waiting if t not in decision.admitted]
        num_running = max(num_running + len(decision.admitted) - 2, 0)
    assert [t.sequence for t in started] == list(range(num_due_before + 1))


turns = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 12)).map(lambda t: t), min_size=1, max_size=12
)


@given(
    turns,
    st.integers(-5, 40),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 10), st.floats(0, 100)), max_size=6),
)
def test_admitted_turns_fit_unless_the_engine_would_be_idle(
    needs: list[tuple[int, int]], blocks: int, running: int, reservations: list[tuple[int, float]]
) -> None:
    waiting = [
        turn(i, needs=n, resident=p, due_s=99.0 if p > 9 else math.inf)
        for i, (n, p) in enumerate(needs)
    ]
    here = budget_of(blocks, running=running, reserved=reservations)
    decision = POLICY.admit(waiting, here)
    gained = sum(here.freed_by(s) for s in decision.released)
    taken = sum(t.demand_blocks for t in decision.admitted)
    is_lone_turn_of_idle_engine = running == 0 and len(decision.admitted) == 1
    assert not taken or taken <= blocks + gained or is_lone_turn_of_idle_engine
    assert decision.admitted or running > 0
    assert len(set(map(id, decision.released))) == len(decision.released)
