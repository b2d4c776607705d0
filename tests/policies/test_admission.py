"""Admission: budgets, decisions, and the rule that most published policies admit by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policies.host import Cache, requests

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget, admit_while_they_fit
from holdfast.policies.base import AdmissionPolicy
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.policies.registry import policy_class, policy_names
from holdfast.runtime.context import RuntimeContext

ADMITTING = [
    name
    for name in policy_names()
    if name not in ENGINE_MODES and issubclass(policy_class(name), AdmissionPolicy)
]


def session(number: int) -> Session:
    node: Node[Any] = Node(None, 0, [])
    return Session(number, None, SessionState.AT_TOOL, node, node)


def turn(name: str, demand_blocks: int) -> Turn:
    number = ord(name)
    return Turn(name, session(number), 0, number, demand_blocks=demand_blocks)


def budget_of(
    blocks: int, *, num_running: int = 1, freed: Mapping[Session, int] | None = None
) -> Budget:
    """A budget with reservations, by the blocks that each frees."""
    reserved = dict(freed or {})
    return Budget(
        now_s=0.0,
        blocks=blocks,
        slots=8,
        num_running=num_running,
        restore_s=lambda session, num_blocks: float(num_blocks),
        reservations=lambda: list(reserved),
        freed_by=reserved.__getitem__,
    )


def test_turns_admitted_until_one_does_not_fit() -> None:
    waiting = [turn("a", 3), turn("b", 4), turn("c", 5), turn("d", 1)]
    # 3 + 4 = 7 of 10; c needs 5 of the 3 left; d would fit, but comes after c.
    assert requests(admit_while_they_fit(waiting, budget_of(10)).admitted) == ["a", "b"]


def test_turn_that_fits_exactly_is_admitted() -> None:
    waiting = [turn("a", 6), turn("b", 4), turn("c", 1)]
    assert requests(admit_while_they_fit(waiting, budget_of(10)).admitted) == ["a", "b"]


def test_turn_without_demand_fits_an_empty_budget() -> None:
    assert requests(admit_while_they_fit([turn("a", 0)], budget_of(0)).admitted) == ["a"]


def test_nothing_fits_a_negative_budget() -> None:
    assert not admit_while_they_fit([turn("a", 0)], budget_of(-1)).admitted


def test_first_turn_admitted_while_nothing_runs() -> None:
    waiting = [turn("a", 50), turn("b", 0)]
    # After a the budget is 10 - 50 < 0: b does not fit.
    admission = admit_while_they_fit(waiting, budget_of(10, num_running=0))
    assert requests(admission.admitted) == ["a"]


def test_released_reservations_add_to_the_budget() -> None:
    one, two = session(1), session(2)
    budget = budget_of(2, freed={one: 3, two: 4})
    admission = admit_while_they_fit([turn("a", 5), turn("b", 1)], budget, [one])
    assert requests(admission.admitted) == ["a"]  # 2 + 3 - 5 = 0
    assert list(admission.released) == [one]


def test_given_order_is_kept() -> None:
    waiting = [turn("c", 1), turn("a", 1), turn("b", 1)]
    assert requests(admit_while_they_fit(waiting, budget_of(10)).admitted) == ["c", "a", "b"]


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(-3, 30), st.integers(0, 2))
def test_admitted_turns_are_the_longest_prefix_that_fits(
    demands: list[int], blocks: int, num_running: int
) -> None:
    waiting = [turn(chr(97 + n), demand) for n, demand in enumerate(demands)]
    admission = admit_while_they_fit(waiting, budget_of(blocks, num_running=num_running))
    count = len(admission.admitted)
    assert list(admission.admitted) == waiting[:count]
    is_forced = num_running == 0 and count == 1
    assert count == 0 or is_forced or sum(demands[:count]) <= blocks
    assert count == len(demands) or sum(demands[: count + 1]) > blocks


def test_budget_and_admission_are_frozen() -> None:
    budget, admission = budget_of(10), Admission()
    with pytest.raises(dataclasses.FrozenInstanceError):
        budget.blocks = 11  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        admission.admitted = ()  # type: ignore[misc]


def test_admission_without_a_rule_admits_all_in_order() -> None:
    policy = AdmissionPolicy(RuntimeContext("never", None, None))
    waiting = [turn("b", 99), turn("a", 99)]
    assert requests(policy.admit(waiting, budget_of(0)).admitted) == ["b", "a"]
    assert not policy.retains(waiting[0].session)


def test_idle_time_is_the_pause_or_a_longer_hint() -> None:
    context = RuntimeContext("never", None, None)
    context._now_s = 10.0
    policy, paused = AdmissionPolicy(context), session(1)
    paused.paused_at_s = 4.0
    assert policy.idle_s(paused) == 6.0
    paused.expected_gap_s = 2.0
    assert policy.idle_s(paused) == 6.0
    paused.expected_gap_s = 60.0
    assert policy.idle_s(paused) == 60.0


@pytest.mark.parametrize("name", ADMITTING)
def test_nothing_admitted_where_nothing_waits(name: str) -> None:
    """All waiting turns may be too large for the cache, so that none is offered."""
    cache = Cache(name, 8)
    cache.run("a", [b"a"])
    for num_running in (0, 1):
        assert list(cache.admit([], num_running).admitted) == []
