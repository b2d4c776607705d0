"""Recurring agents: calls with one prefix, each in a session of its own."""

from __future__ import annotations

import random

import pytest
from tests.policies.host import HUMAN, Cache, FixedOracle, hashes_of

from holdfast.core.events import SessionForgotten
from holdfast.core.identity import Identity
from holdfast.policies.base import PriorityClass
from holdfast.policies.ours.holdfast import Holdfast
from holdfast.policies.ours.recurring_agents import RecurringAgents
from holdfast.predict.step_graph import AgentStep, WorkflowGraph


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
        workload.interval_s = 10.0
        cache.at(cache.now_s + (10.0 if number == 59 else 1.0 if number // 3 % 2 else 16.0))
        cache.run(f"r{number}", hashes_of(name * 4 + chr(0x100 + number)), served_s=0.0)
    *_, latest_of_a, _, _ = cache.runtime.sessions
    called_s = cache.now_s
    # C was called last; A is one step away: in 10 s, less than 3 % longer as it is not certain.
    cache.at(called_s + 2.0)
    assert agents.use_rate(latest_of_a, 0.0) == pytest.approx(1 / 8, rel=0.03)
    # No sooner than in half an interval.
    cache.at(called_s + 7.0)
    assert agents.use_rate(latest_of_a, 0.0) == pytest.approx(1 / 5)
    # The longer it is overdue, the less is it expected: 100 - 10 - 2 * 10 s.
    cache.at(called_s + 100.0)
    assert agents.use_rate(latest_of_a, 0.0) == pytest.approx(1 / 70, rel=0.03)


def named(agent: str, workflow: str, tenant: str = "") -> Identity:
    return Identity(agent_id=agent, workflow_id=workflow, tenant=tenant)


def run_debate(cache: Cache, num_rounds: int, workflow: str = "w") -> dict[str, str]:
    """Three agents take turns, each going on with its own session; returns their paths."""
    paths = {name: (name + workflow) * 2 for name in "ABC"}
    for number in range(num_rounds):
        for name, path in paths.items():
            cache.now_s += 10.0
            own = path + chr(0x100 + number)
            cache.run(f"{workflow}{name}{number}", hashes_of(own), identity=named(name, workflow))
            paths[name] = own
    return paths


def test_workflow_order_rates_sessions_that_go_on() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    paths = run_debate(cache, 20)
    cache.at(cache.now_s)
    tails = {cache.runtime.tree.match(hashes_of(path)).node: name for name, path in paths.items()}
    rates = {tails[s.tail]: agents.use_rate(s, 0.5) for s in cache.runtime.sessions}
    # C called last, and its own return is not a matter of order. A is next, then B.
    assert rates["C"] >= 0.5
    assert 0.5 > rates["A"] > 1.5 * rates["B"] > 0.0


def test_whole_session_that_goes_on_is_prefetched() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    paths = run_debate(cache, 20)
    cache.at(cache.now_s)
    last = [node.hashes[-1].decode() for node in agents.called_next()]
    assert last == [paths["A"], paths["B"]]


def test_named_agent_of_another_tenant_is_another() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    for number in range(12):
        for name in "ABC":
            cache.now_s += 10.0
            prompt = hashes_of(name * 4 + chr(0x100 + number))
            cache.run(f"{name}{number}", prompt, identity=named(name, "w", "one"))
    cache.run("other", hashes_of("CCCCx"), identity=named("C", "w", "two"))
    cache.at(cache.now_s)
    assert cache.runtime.agent_calls.of("one").is_predictable
    assert not cache.runtime.agent_calls.of("two").is_predictable
    *_, other = cache.runtime.sessions
    assert agents.use_rate(other, 0.25) == 0.25


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


def test_forgotten_session_stands_for_no_call() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    run_debate(cache, 12)
    cache.runtime.sessions.max_sessions = 1
    cache.run("other", hashes_of("other"))
    assert not list(agents.called_next())
    assert not agents._latest


# Declared workflows.


def ring(agents: str) -> WorkflowGraph:
    """Agents in a circle; the first may begin."""
    return WorkflowGraph(
        tuple(AgentStep(name, (agents[i - 1],), entry=i == 0) for i, name in enumerate(agents))
    )


def run_ring(cache: Cache, names: str, num_rounds: int) -> list[int]:
    """Call agents of a workflow in turn, a second apart; returns blocks found by call."""
    found = []
    for number in range(num_rounds):
        for name in names:
            cache.at(cache.now_s + 1.0)
            prompt = hashes_of(name * 4 + chr(0x100 + number))
            identity = Identity(agent_id=name, workflow_id="w")
            turn = cache.arrive(f"{name}{number}", prompt, identity=identity)
            cache.step()
            found.append(cache.start(turn))
            cache.end(turn, HUMAN)
    return found


def test_declared_steps_give_the_rate_before_any_is_learned() -> None:
    cache = Cache("holdfast", 100)
    cache.runtime.declare_workflow("", "w", ring("ABCDE"))
    run_ring(cache, "ABCDE", 1)
    sessions = list(cache.runtime.sessions)
    agents = cache.runtime.shared(RecurringAgents)
    rates = [agents.use_rate(session, 0.0) for session in sessions]
    # E has just ended: A is one step of one second away, E five.
    assert rates == pytest.approx([1.0 / steps for steps in (1, 2, 3, 4, 5)])
    cache.runtime.end_workflow("", "w")
    assert [agents.use_rate(session, 0.0) for session in sessions] == [0.0] * 5


def test_declared_graph_saves_the_rounds_that_learning_takes() -> None:
    found = {}
    for is_declared in (False, True):
        cache = Cache("holdfast", 14)
        if is_declared:
            cache.runtime.declare_workflow("", "w", ring("ABCDE"))
        found[is_declared] = run_ring(cache, "ABCDE", 3)
    assert sum(found[True]) > sum(found[False])


def test_declared_agents_of_the_next_two_steps_are_prefetched() -> None:
    cache = Cache("holdfast", 100)
    cache.runtime.declare_workflow("", "w", ring("ABCDE"))
    run_ring(cache, "ABCDE", 2)
    policy = cache.runtime.policies.eviction
    assert isinstance(policy, Holdfast)
    cache.runtime.guard.trusts = True
    assert [node.hashes[-1] for node in policy.candidates()][:2] == [b"AAAA", b"BBBB"]
