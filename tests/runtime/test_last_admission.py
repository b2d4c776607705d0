"""Why turns were not admitted, on decisions worked by hand."""

from __future__ import annotations

from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.tenants import Tenant
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission
from holdfast.runtime.last_admission import LastAdmission

OURS, THEIRS = Tenant(), Tenant(served_s=1.0)


def turn(number: int, tenant: Tenant = OURS, **more: Any) -> Turn:
    node: Node[Any] = Node(None, 0, [])
    session = Session(number, None, SessionState.WAITING, node, node)
    return Turn(f"r{number}", session, 0, number, tenant, demand_blocks=9, missing_blocks=9, **more)


def decided(*lacking: Turn, admitted: tuple[Turn, ...] = (), slots: int = 8) -> LastAdmission:
    last = LastAdmission()
    last.note(Admission(admitted, lacking=lacking), 10.0, 4, slots)
    return last


def test_a_turn_that_was_looked_at_lacks_blocks() -> None:
    first = turn(1)
    assert decided(first).delay_of(first) == ("blocks", 9, 4, None)


def test_others_come_after_the_first_cold_one() -> None:
    warm, cold = turn(1), turn(2)
    warm.resident_blocks = 20
    last = decided(warm, cold)
    assert last.delay_of(turn(3)) == ("order", 9, 4, 2)
    assert last.delay_of(turn(4, THEIRS)).reason == "tenant"


def test_a_due_turn_goes_before_all() -> None:
    due = turn(2, due_s=10.0)
    assert decided(turn(1), due).delay_of(turn(3, THEIRS)) == ("due", 9, 4, 2)


def test_priorities_are_told_from_own_order() -> None:
    first, urgent, patient = turn(1), turn(2), turn(3)
    first.priority, patient.session.own_priority = -1, 4
    assert decided(first).delay_of(urgent).reason == "priority"
    assert decided(urgent).delay_of(patient).reason == "own_order"
    assert decided(patient).delay_of(urgent).reason == "order"


def test_full_slots_count_before_order() -> None:
    first, second = turn(1), turn(2)
    assert decided(admitted=(first,), slots=1).delay_of(second).reason == "slots"
    last = decided(first)
    last.note_full(11.0)
    assert last.delay_of(first).reason == last.delay_of(second).reason == "slots"


def test_admitted_and_new_turns_start_next() -> None:
    first, new = turn(1), turn(2, arrived_s=10.5)
    last = decided(turn(3), admitted=(first,))
    assert last.delay_of(first).reason == last.delay_of(new).reason == "admitted"


def test_a_turn_remembers_what_it_waited_for() -> None:
    first, at_once = turn(1), turn(2, arrived_s=10.5)
    last = decided(first)
    last.note(Admission((first, at_once)), 11.0, 40, 8)
    assert (first.delayed_by, at_once.delayed_by) == ("blocks", "")
    last.note(Admission((first,)), 12.0, 40, 8)  # admitted twice: no step had started it
    assert first.delayed_by == "blocks"


def test_a_prefetch_in_flight_is_named() -> None:
    assert decided(turn(1)).delay_of(turn(2, is_loading=True)).reason == "prefetch"


def test_nothing_is_known_after_a_reset() -> None:
    first = turn(1)
    last = decided(first)
    last.clear()
    assert last.delay_of(first).reason == "admitted"
