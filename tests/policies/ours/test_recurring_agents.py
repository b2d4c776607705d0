"""Recurring agents: calls with one prefix, each in a session of its own."""

from __future__ import annotations

import random

import pytest
from tests.policies.host import Cache, FixedOracle, hashes_of

from holdfast.core.events import SessionForgotten
from holdfast.policies.base import PriorityClass
from holdfast.policies.ours.holdfast import Holdfast
from holdfast.policies.ours.recurring_agents import RecurringAgents


def run_cycle(cache: Cache, names: str, num_rounds: int, first_round: int = 0) -> int:
    """Call agents in turn, each with four blocks of its own and a new one; returns blocks found."""
    found = 0
    for number in range(first_round, first_round + num_rounds):
        for name in names:
            cache.now_s += 1.0
            found += cache.run(f"{name}{number}", hashes_of(name * 4 + chr(0x100 + number)))
    return found


def test_cycle_longer_than_the_cache_keeps_some_prefixes() -> None:
    recent, holdfast = (Cache(name, 14, FixedOracle()) for name in ("vllm-default", "holdfast"))
    for cache in (recent, holdfast):
        run_cycle(cache, "ABCDE", 6)
    assert run_cycle(recent, "ABCDE", 10, 6) == 0
    assert run_cycle(holdfast, "ABCDE", 10, 6) >= 40


def test_prefixes_of_the_next_two_agents_are_prefetched() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDEFGHIJ", 9)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    cache.runtime.guard.trusts = True
    cache.runtime.tick(cache.now_s + 0.5)
    assert [node.hashes[-1] for node in policy.candidates()] == [b"AAAA", b"BBBB"]


def test_nothing_prefetched_for_agents_in_random_order() -> None:
    cache = Cache("holdfast", 100)
    rng = random.Random(1)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    for number in range(60):
        cache.now_s += rng.expovariate(0.1)
        name = rng.choice("ABCDE")
        cache.run(f"r{number}", hashes_of(name * 4 + chr(0x100 + number)))
        assert not list(policy.candidates())


def test_nothing_prefetched_while_predictions_are_not_trusted() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDEFGHIJ", 9)
    cache.runtime.guard.trusts = False
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    assert not list(policy.candidates())


def test_agent_whose_sessions_go_on_rates_their_returns() -> None:
    """Sessions with one beginning, each of which returns: none stands for another."""
    cache = Cache("holdfast", 100)
    agents = cache.runtime.shared(RecurringAgents)
    for number in range(8):
        cache.now_s += 10.0
        own = "PPPP" + chr(0x100 + number)
        cache.run(f"a{number}", hashes_of(own))
        cache.run(f"b{number}", hashes_of(own + "x"))
    assert all(agents.use_rate(session, 5.0) == 5.0 for session in cache.runtime.sessions)
    assert all(agents.share(s, s.tail) == 1.0 for s in cache.runtime.sessions)


def test_blocks_that_calls_do_not_share_have_a_low_priority() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDE", 9)
    policy = cache.runtime.policies.eviction
    latest, *_ = reversed(list(cache.runtime.sessions))
    shared = latest.tail.parent
    assert shared is not None
    assert policy.priority(latest.tail)[1] < 0.1 * policy.priority(shared)[1]


def test_calls_that_are_not_continued_get_no_reservation() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDE", 9)
    policy = cache.runtime.policies.admission
    latest, *_ = reversed(list(cache.runtime.sessions))
    assert not policy.retains(latest)
    cache.run("other", hashes_of("unlike all others"))
    other, *_ = reversed(list(cache.runtime.sessions))
    assert policy.retains(other)


def test_no_reservation_where_forgotten_sessions_never_went_on() -> None:
    cache = Cache("holdfast", 100)
    policy = cache.runtime.policies.admission
    cache.run("first", hashes_of("abcd"))
    (first,) = cache.runtime.sessions
    assert policy.retains(first)
    for number in range(8):
        cache.run(f"r{number}", hashes_of(chr(0x100 + number) * 4))
        *_, latest = cache.runtime.sessions
        cache.runtime.shared(RecurringAgents).observe(SessionForgotten(cache.now_s, latest))
    assert not policy.retains(first)
    cache.run("again", hashes_of("abcde"))
    assert policy.retains(first)


def test_agents_in_a_fixed_order_prefetched_at_any_interval() -> None:
    cache = Cache("holdfast", 100)
    rng = random.Random(1)
    for number in range(4):
        for name in "ABCDE":
            cache.now_s += rng.expovariate(0.1)
            cache.run(f"{name}{number}", hashes_of(name * 4 + chr(0x100 + number)))
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    assert [node.hashes[-1] for node in policy.candidates()] == [b"AAAA", b"BBBB"]


def call_every(cache: Cache, name: str, interval_s: float, num_calls: int) -> RecurringAgents:
    """Call one agent regularly, each time with a new session that is not continued."""
    agents = cache.runtime.shared(RecurringAgents)
    for number in range(num_calls):
        cache.at(number * interval_s)
        cache.run(f"{name}{number}", hashes_of(name * 4 + chr(0x100 + number)), served_s=0.0)
    return agents


def test_latest_session_of_an_agent_rates_its_next_call() -> None:
    cache = Cache("holdfast", 100)
    agents = call_every(cache, "P", 8.0, 6)
    *_, before, latest = cache.runtime.sessions
    # Errors of the last four intervals are 0: 1 * 0.7^4 = 0.2401 < 0.35, so the agent is regular.
    # Its next call is due 8 s after the last: in 6 s.
    cache.at(40.0 + 2.0)
    assert agents.use_rate(latest, 0.0) == pytest.approx(1 / 6)
    # Another session of the agent rates its own returns: of five calls none went on, 0.7^5.
    assert agents.use_rate(before, 1.0) == pytest.approx(0.16807)


def test_call_that_is_overdue_is_expected_at_any_moment() -> None:
    cache = Cache("holdfast", 100)
    agents = call_every(cache, "P", 8.0, 6)
    *_, latest = cache.runtime.sessions
    # At 8 s and up to 12 s: in the mean error's share of the interval, 0.2401 * 8 s.
    for waited_s in (7.9, 8.0, 12.0):
        cache.at(40.0 + waited_s)
        assert agents.use_rate(latest, 0.0) == pytest.approx(1 / 1.9208)
    # One and a half intervals after the last the agent is not expected any more.
    cache.at(40.0 + 12.5)
    assert agents.use_rate(latest, 0.0) == 0.0


def test_agent_called_three_times_is_not_regular_yet() -> None:
    cache = Cache("holdfast", 100)
    agents = call_every(cache, "P", 8.0, 3)
    *_, latest = cache.runtime.sessions
    # One interval was predicted, and came true: 1 * 0.7 = 0.7 >= 0.35.
    assert agents.use_rate(latest, 0.25) == 0.25


def test_own_blocks_of_a_call_have_its_continued_share() -> None:
    cache = Cache("holdfast", 100)
    agents = call_every(cache, "P", 8.0, 6)
    *_, before, latest = cache.runtime.sessions
    prefix = latest.tail.parent
    assert prefix is not None and prefix.hashes[-1] == b"PPPP"
    assert agents.share(latest, prefix) == 1.0
    assert agents.share(latest, latest.tail) == pytest.approx(0.16807)  # 0.7^5
    assert agents.share(before, before.tail) == 1.0


def test_forgotten_session_leaves_no_call() -> None:
    cache = Cache("holdfast", 100)
    agents = call_every(cache, "P", 8.0, 4)
    cache.runtime.sessions.max_sessions = 1
    cache.run("other", hashes_of("other"))
    assert set(agents._calls) == set(cache.runtime.sessions)


def test_agent_called_next_is_expected_in_the_typical_interval() -> None:
    """Agents in a fixed order, at intervals too uneven for any to be regular."""
    cache = Cache("holdfast", 100)
    agents = cache.runtime.shared(RecurringAgents)
    workload = cache.runtime.agent_calls.of("")
    for number in range(60):
        name = "ABC"[number % 3]
        workload.intervals.typical_s = 10.0
        cache.at(cache.now_s + (10.0 if number == 59 else 1.0 if number // 3 % 2 else 16.0))
        cache.run(f"r{number}", hashes_of(name * 4 + chr(0x100 + number)), served_s=0.0)
    *_, latest_of_a, _, _ = cache.runtime.sessions
    called_s = cache.now_s
    # C was called last; A is one step away: in 10 s, less than 3 % longer as it is not certain.
    cache.at(called_s + 2.0)
    assert agents.use_rate(latest_of_a, 0.0) == pytest.approx(1 / 8, rel=0.03)
    # No sooner than in half an interval, if the run goes on.
    cache.at(called_s + 7.0)
    assert 1 / 8 < agents.use_rate(latest_of_a, 0.0) <= 1 / 5
    # The longer it is overdue, the less is it expected.
    cache.at(called_s + 100.0)
    assert agents.use_rate(latest_of_a, 0.0) < 1 / 70


def test_prefix_lives_after_its_call_while_agent_is_expected() -> None:
    cache = Cache("holdfast", 200)
    for number in range(12):
        for name in "ABC":
            cache.now_s += 10.0
            cache.run(f"{name}{number}", hashes_of(name * 4 + chr(0x100 + number)))
            *_, session = cache.runtime.sessions
            cache.runtime.session_closed(session)
    cache.at(cache.now_s)
    cache.runtime.guard.trusts = True
    *_, latest_of_a, _, _ = cache.runtime.sessions
    prefix = latest_of_a.tail.parent
    assert prefix is not None
    policy = cache.runtime.policies.eviction
    assert policy.priority(latest_of_a.tail) == (PriorityClass.CLOSED, 0.0)
    assert policy.priority(prefix)[0] == PriorityClass.LIVE
    cache.runtime.guard.trusts = False
    assert policy.priority(prefix) == (PriorityClass.CLOSED, 0.0)
