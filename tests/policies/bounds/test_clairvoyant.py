"""Clairvoyant: Holdfast's rules by true return times, with hand-worked numbers."""

from __future__ import annotations

import math

import pytest
from tests.policies.host import Cache, FixedOracle, hashes_of

from holdfast.policies.base import PriorityClass
from holdfast.policies.bounds.true_returns import TrueReturns


def reserved_after_a_claim(gaps_s: dict[str, float]) -> set[int]:
    """Sessions that keep their reservation after a turn of eight blocks finds four free ones."""
    cache = Cache("clairvoyant", 16, FixedOracle(gaps_s))
    cache.run("first", hashes_of("abcd"))
    cache.run("second", hashes_of("efgh"))
    runtime = cache.runtime
    newcomer = runtime.turn_arrived("third", hashes_of("12345678"))
    newcomer.missing_blocks = newcomer.demand_blocks = 8
    runtime.admit([newcomer], blocks=4, slots=8, num_running=1)
    return {session.number for session in runtime.sessions if session.has_reservation}


def test_session_truly_away_for_long_loses_its_reservation() -> None:
    # Recomputing 4 blocks of 16 tokens takes 6.4 s; with one running, one waiting: twice that.
    assert reserved_after_a_claim({"first": 500.0, "second": 1.0}) == {1}
    assert reserved_after_a_claim({"first": 1.0, "second": 500.0}) == {0}


def test_session_truly_back_soon_keeps_its_reservation() -> None:
    assert reserved_after_a_claim({"first": 10.0, "second": 10.0}) == {0, 1}


def test_session_that_never_returns_loses_its_reservation() -> None:
    assert reserved_after_a_claim({"first": 1.0}) == {0}


def test_priority_is_the_inverse_of_the_true_time_left() -> None:
    cache = Cache("clairvoyant", 16, FixedOracle({"a": 10.0}))
    session = cache.session("a", hashes_of("ab"))
    cache.at(2.0)
    assert cache.eviction.session_priority(session) == 1 / 8
    cache.at(9.5)
    assert cache.eviction.session_priority(session) == 2.0


def test_session_that_never_returns_has_no_priority() -> None:
    cache = Cache("clairvoyant", 16)
    assert cache.eviction.session_priority(cache.session("a", hashes_of("ab"))) == 0.0


def test_session_in_the_engine_rates_its_recompute_time() -> None:
    cache = Cache("clairvoyant", 16)
    turn = cache.arrive("a", hashes_of("ab"))
    # Two blocks of 1.6 s.
    assert cache.eviction.session_priority(turn.session) == pytest.approx(1 / 3.2)


def test_closed_session_has_no_priority() -> None:
    cache = Cache("clairvoyant", 16, FixedOracle({"a": 10.0}))
    session = cache.session("a", hashes_of("ab"))
    cache.runtime.session_closed(session)
    assert cache.eviction.session_priority(session) == 0.0


def test_furthest_true_return_evicted_first() -> None:
    cache = Cache("clairvoyant", 6, FixedOracle({"a": 10.0, "b": 100.0, "c": 1.0}))
    for name in "abc":
        cache.run(name, hashes_of(name * 2))
    assert cache.evict(6) == ["bb", "b", "aa", "a", "cc", "c"]


def test_shared_node_has_the_sum_of_its_users_rates() -> None:
    cache = Cache("clairvoyant", 16, FixedOracle({"a": 4.0, "b": 8.0}))
    for name in "ab":
        cache.session(name, hashes_of("ss" + name))
    assert cache.priority("ss") == (PriorityClass.LIVE, 1 / 4 + 1 / 8)
    assert cache.priority("ssa") == (PriorityClass.LIVE, 1 / 4)


def test_true_time_left_falls_to_zero_and_no_further() -> None:
    cache = Cache("clairvoyant", 16, FixedOracle({"a": 10.0}))
    session = cache.session("a", hashes_of("ab"))
    returns = cache.runtime.shared(TrueReturns)
    left_s = []
    for now_s in (0.0, 4.0, 10.0, 11.0):
        cache.at(now_s)
        left_s.append(returns.left_s(session))
    assert left_s == [10.0, 6.0, 0.0, 0.0]
    assert returns.left_s(cache.session("b", hashes_of("xy"))) == math.inf


def test_sessions_that_return_are_listed_soonest_first() -> None:
    cache = Cache("clairvoyant", 16, FixedOracle({"a": 9.0, "b": 3.0, "d": 5.0}))
    sessions = {name: cache.session(name, hashes_of(name)) for name in "abcd"}
    cache.arrive("d2", hashes_of("dd"))  # back in the engine; c never returns
    assert cache.runtime.shared(TrueReturns).next_back() == [sessions["b"], sessions["a"]]


def test_prefetch_bound_names_the_soonest_return_first() -> None:
    cache = Cache("clairvoyant-prefetch", 16, FixedOracle({"a": 9.0, "b": 3.0}))
    sessions = {name: cache.session(name, hashes_of(name)) for name in "abc"}
    candidates = list(cache.runtime.policies.prefetch.candidates())
    assert candidates == [sessions["b"].tail, sessions["a"].tail]


def test_prefetch_bound_evicts_by_predictions() -> None:
    """Its eviction knows no more than Holdfast's: the true gap of either session is ignored."""
    lost = []
    for gaps_s in ({"a": 1000.0, "b": 1.0}, {"a": 1.0, "b": 1000.0}):
        cache = Cache("clairvoyant-prefetch", 4, FixedOracle(gaps_s))
        for name in "ab":
            cache.run(name, hashes_of(name * 2))
        lost.append(cache.evict(4))
    assert lost[0] == lost[1]
