"""Prefetches that clients ask for."""

from __future__ import annotations

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.identity import Identity
from holdfast.core.session import Session, SessionTable
from holdfast.runtime.asked_prefetches import AskedPrefetches

TABLE = SessionTable(PrefixTree(), 1000)


def session(tenant: str) -> Session:
    made = TABLE.add(None)
    made.identity = Identity(tenant=tenant)
    return made


def test_tenants_take_turns() -> None:
    asked = AskedPrefetches()
    greedy, modest = [session("greedy") for _ in range(6)], session("modest")
    assert [asked.ask(one) for one in greedy] == [True] * 4 + [False] * 2
    assert asked.ask(modest)
    assert list(asked) == [greedy[0], modest, *greedy[1:4]]


def test_dropped_session_makes_space_for_another() -> None:
    asked = AskedPrefetches()
    sessions = [session("a") for _ in range(5)]
    for one in sessions[:4]:
        asked.ask(one)
    asked.drop(sessions[0])
    asked.drop(sessions[0])
    assert asked.ask(sessions[4])
    asked.clear()
    assert list(asked) == []


def test_number_of_tenants_is_bounded() -> None:
    asked = AskedPrefetches()
    assert sum(asked.ask(session(str(number))) for number in range(500)) == 256
