"""Prefixes that agents need again and again, each in a session of its own."""

from __future__ import annotations

import random

from tests.policies.host import Cache, FixedOracle, chain

from holdfast.core.events import SessionForgotten
from holdfast.policies.ours.holdfast import Holdfast
from holdfast.policies.ours.recurring_agents import RecurringAgents


def run_cycle(cache: Cache, names: str, num_rounds: int, first_round: int = 0) -> int:
    """Call agents in turn, each with four blocks of its own and a new one; returns blocks found."""
    found = 0
    for number in range(first_round, first_round + num_rounds):
        for name in names:
            cache.now_s += 1.0
            found += cache.run(f"{name}{number}", chain(name * 4 + chr(0x100 + number)))
    return found


def test_a_cycle_too_long_for_recency_is_kept_in_part() -> None:
    recent, holdfast = (Cache(name, 14, FixedOracle()) for name in ("vllm-default", "holdfast"))
    for cache in (recent, holdfast):
        run_cycle(cache, "ABCDE", 6)
    assert run_cycle(recent, "ABCDE", 10, 6) == 0
    assert run_cycle(holdfast, "ABCDE", 10, 6) >= 40


def test_the_agents_whose_calls_are_due_next_are_announced_in_order() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDEFGHIJ", 9)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    cache.runtime.guard.trusts = True
    cache.runtime.tick(cache.now_s + 0.5)
    assert [node.hashes[-1] for node in policy.candidates()] == [b"AAAA", b"BBBB"]


def test_nothing_is_announced_where_agents_come_at_random() -> None:
    cache = Cache("holdfast", 100)
    rng = random.Random(1)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    for number in range(60):
        cache.now_s += rng.expovariate(0.1)
        name = rng.choice("ABCDE")
        cache.run(f"r{number}", chain(name * 4 + chr(0x100 + number)))
        assert not list(policy.candidates())


def test_nothing_is_announced_while_predictions_are_not_trusted() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDEFGHIJ", 9)
    cache.runtime.guard.trusts = False
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    assert not list(policy.candidates())


def test_what_regularly_begins_and_goes_on_is_worth_its_sessions_returns() -> None:
    """Sessions with one beginning, each of which returns: none stands for another."""
    cache = Cache("holdfast", 100)
    agents = cache.runtime.shared(RecurringAgents)
    for number in range(8):
        cache.now_s += 10.0
        own = "PPPP" + chr(0x100 + number)
        cache.run(f"a{number}", chain(own))
        cache.run(f"b{number}", chain(own + "x"))
    assert all(agents.use_rate(session, 5.0) == 5.0 for session in cache.runtime.sessions)
    assert all(agents.share(s, s.tail) == 1.0 for s in cache.runtime.sessions)


def test_what_an_agents_call_does_not_share_is_worth_little() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDE", 9)
    policy = cache.runtime.policies.eviction
    latest, *_ = reversed(list(cache.runtime.sessions))
    shared = latest.tail.parent
    assert shared is not None
    assert policy.priority(latest.tail)[1] < 0.1 * policy.priority(shared)[1]


def test_calls_that_nobody_continues_keep_no_place() -> None:
    cache = Cache("holdfast", 100)
    run_cycle(cache, "ABCDE", 9)
    policy = cache.runtime.policies.admission
    latest, *_ = reversed(list(cache.runtime.sessions))
    assert not policy.retains(latest)
    cache.run("other", chain("unlike all others"))
    other, *_ = reversed(list(cache.runtime.sessions))
    assert policy.retains(other)


def test_sessions_keep_no_place_where_those_forgotten_were_never_continued() -> None:
    cache = Cache("holdfast", 100)
    policy = cache.runtime.policies.admission
    cache.run("first", chain("abcd"))
    (first,) = cache.runtime.sessions
    assert policy.retains(first)
    for number in range(8):
        cache.run(f"r{number}", chain(chr(0x100 + number) * 4))
        *_, latest = cache.runtime.sessions
        cache.runtime.shared(RecurringAgents).observe(SessionForgotten(cache.now_s, latest))
    assert not policy.retains(first)
    cache.run("again", chain("abcde"))
    assert policy.retains(first)


def test_agents_in_a_fixed_order_are_announced_however_long_each_call_takes() -> None:
    cache = Cache("holdfast", 100)
    rng = random.Random(1)
    for number in range(4):
        for name in "ABCDE":
            cache.now_s += rng.expovariate(0.1)
            cache.run(f"{name}{number}", chain(name * 4 + chr(0x100 + number)))
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    assert [node.hashes[-1] for node in policy.candidates()] == [b"AAAA", b"BBBB"]
