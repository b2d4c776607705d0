"""Promises to retain blocks: shares, lapses, and the order that they give."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.runtime.test_runtime import prefix_hashes

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.identity import Identity
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.policies.base import PriorityClass
from holdfast.runtime.retention import Retention

LIVE = (PriorityClass.LIVE, 1.0)


class Cache:
    """Sessions on a tree of a hundred blocks, half of which may be promised."""

    def __init__(self) -> None:
        self.tree: PrefixTree[Any] = PrefixTree()
        self.table = SessionTable(self.tree, 1000)
        self.active: set[str] = set()
        self.retention = Retention(lambda: 100, lambda: self.active)
        self.retention.share = 0.5

    def session(self, prompt: str, tenant: str = "", own_priority: int = 0) -> Session:
        session = self.table.add(None)
        session.identity = Identity(tenant=tenant)
        session.state = SessionState.AT_TOOL
        session.own_priority = own_priority
        session.tail = session.prompt_tail = self.tree.insert(prefix_hashes(prompt))[0]
        session.tail.tails.add(session)
        return session

    def promised(self, sessions: list[Session]) -> list[bool]:
        return [session in self.retention for session in sessions]


@pytest.fixture
def cache() -> Cache:
    return Cache()


def test_promise_larger_than_the_share_is_refused(cache: Cache) -> None:
    large, small = cache.session("a" * 51), cache.session("b" * 50)
    assert cache.retention.grant(large, 9.0) == (False, [])
    assert cache.retention.grant(small, 9.0) == (True, [])
    assert (large.retained_until_s, small.retained_until_s) == (-math.inf, 9.0)


def test_oldest_promise_lapses_for_a_younger_one(cache: Cache) -> None:
    sessions = [cache.session(letter * 20) for letter in "abc"]
    lapsed = [cache.retention.grant(session, 9.0)[1] for session in sessions]
    assert lapsed == [[], [], [sessions[0]]]
    assert cache.promised(sessions) == [False, True, True]


def test_least_urgent_promise_lapses_first(cache: Cache) -> None:
    urgent, other = cache.session("a" * 20, own_priority=-5), cache.session("b" * 20)
    last = cache.session("c" * 20)
    for session in (urgent, other, last):
        cache.retention.grant(session, 9.0)
    assert cache.promised([urgent, other, last]) == [True, False, True]


def test_shared_blocks_count_once(cache: Cache) -> None:
    sessions = [cache.session("a" * 40 + letter * 5) for letter in "xy"]
    for session in sessions:
        assert cache.retention.grant(session, 9.0) == (True, [])


def test_shared_blocks_still_count_after_a_lapse(cache: Cache) -> None:
    sessions = [cache.session("a" * 40 + letter * 4) for letter in "wxyz"]
    for session in sessions:
        cache.retention.grant(session, 9.0)
    assert cache.promised(sessions) == [False, False, True, True]


def test_each_tenant_has_an_equal_share(cache: Cache) -> None:
    cache.active = {"one", "two", "three", "four", "five"}
    assert cache.retention.share_blocks() == 10
    assert not cache.retention.grant(cache.session("a" * 11, "one"), 9.0)[0]
    assert cache.retention.grant(cache.session("b" * 10, "one"), 9.0)[0]
    assert cache.retention.share_blocks() == 10  # a tenant counts once


def test_promises_lapse_when_tenants_come(cache: Cache) -> None:
    cache.active = {"one"}
    sessions = [cache.session(letter * 20, "one") for letter in "ab"]
    for session in sessions:
        cache.retention.grant(session, 9.0)
    assert list(cache.retention.step(1.0)) == []
    cache.active = {"one", "two"}
    assert list(cache.retention.step(2.0)) == [(sessions[0], True)]
    assert cache.promised(sessions) == [False, True]


def test_promise_ends_at_its_time(cache: Cache) -> None:
    first, second = cache.session("a"), cache.session("b")
    cache.retention.grant(first, 5.0)
    cache.retention.grant(second, 5.0)
    cache.retention.grant(second, 7.0)
    assert list(cache.retention.step(4.9)) == []
    assert list(cache.retention.step(6.0)) == [(first, False)]
    assert list(cache.retention.step(7.0)) == [(second, False)]
    assert cache.retention.share_blocks() == 50


def test_promised_node_goes_last_and_evicted_one_first(cache: Cache) -> None:
    promised, evicted, other = (cache.session(letter) for letter in "abc")
    for session in (promised, evicted, other):
        assert cache.retention.adjusted(session.tail, LIVE) == LIVE
    cache.retention.grant(promised, 9.0)
    cache.retention.evict_first(evicted)
    order = [cache.retention.adjusted(s.tail, LIVE) for s in (promised, other, evicted)]
    assert order == sorted(order, reverse=True)
    assert order[0][0] < PriorityClass.PINNED and order[2][0] == PriorityClass.CLOSED


def test_shared_node_is_not_evicted_first_for_one_user(cache: Cache) -> None:
    evicted, other = cache.session("ax"), cache.session("ay")
    cache.retention.evict_first(evicted)
    shared = evicted.tail.parent
    assert shared is not None
    assert cache.retention.adjusted(shared, LIVE) == LIVE
    other.state = SessionState.CLOSED
    assert cache.retention.adjusted(shared, LIVE)[0] == PriorityClass.CLOSED


def test_number_of_promises_is_bounded(cache: Cache) -> None:
    cache.retention.share = 0.9
    sessions = [cache.session("a") for _ in range(300)]
    for session in sessions:
        cache.retention.grant(session, 9.0)
        cache.retention.grant(session, 8.0)
    assert sum(cache.promised(sessions)) == 128
    assert len(cache.retention._ends) <= 2 * 128 + 65


def test_nothing_is_left_when_all_are_dropped(cache: Cache) -> None:
    sessions = [cache.session(letter) for letter in "abc"]
    for session in sessions:
        cache.retention.grant(session, 9.0)
    assert [cache.retention.drop(session) for session in sessions] == [True] * 3
    assert not cache.retention._promises
    cache.retention.grant(sessions[0], 9.0)
    cache.retention.clear()
    assert sessions[0].retained_until_s == -math.inf and not cache.retention._ends
