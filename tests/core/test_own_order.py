"""Orders within tenants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.own_order import put_into_own_order, reorder_within
from holdfast.core.session import Session, SessionTable
from holdfast.core.tenants import Tenant
from holdfast.core.turn import Turn

TABLE = SessionTable(PrefixTree(), 1000)
TENANTS = {name: Tenant(name) for name in ("a", "b")}


def turn(sequence: int, tenant: str, own_priority: int = 0) -> Turn:
    session: Session = TABLE.add(None)
    session.own_priority = own_priority
    return Turn(str(sequence), session, 0, sequence, TENANTS[tenant])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 3))))
def test_groups_keep_their_positions(items: list[tuple[str, int]]) -> None:
    ordered = reorder_within(items, lambda item: item[0], lambda item: item[1])
    assert [group for group, _ in ordered] == [group for group, _ in items]
    for group in "abc":
        own = [key for name, key in ordered if name == group]
        assert own == sorted(key for name, key in items if name == group)


def test_urgent_turn_takes_the_position_of_a_passed_one() -> None:
    turns = [turn(1, "a", 5), turn(2, "b"), turn(3, "a", 7), turn(4, "a", 5)]
    for one in turns:
        one.due_s = float(one.sequence)
    put_into_own_order(turns[3], [turns[0], turns[2]])
    assert [(one.sequence, one.due_s) for one in turns] == [(1, 1), (2, 2), (4, 4), (3, 3)]
    urgent = turn(5, "a", -1)
    put_into_own_order(urgent, [turns[0], turns[2], turns[3]])
    assert [one.sequence for one in (urgent, *turns)] == [1, 3, 2, 5, 4]


def test_turns_of_equal_urgency_stay_in_order_of_arrival() -> None:
    first, second = turn(1, "a", 5), turn(2, "a", 5)
    put_into_own_order(second, [first])
    assert (first.sequence, second.sequence) == (1, 2)


def test_engine_priority_comes_first() -> None:
    first, second = turn(1, "a", 5), turn(2, "a", -5)
    second.priority = 1
    put_into_own_order(second, [first])
    assert (first.sequence, second.sequence) == (1, 2)
