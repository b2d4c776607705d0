"""Agents of workflows that clients name: streams, ends and declared graphs."""

from __future__ import annotations

import pytest
from tests.policies.host import HUMAN, Cache, hashes_of

from holdfast.core.commands import EndWorkflow
from holdfast.core.identity import Identity
from holdfast.policies.ours.holdfast import Holdfast
from holdfast.policies.ours.recurring_agents import RecurringAgents
from holdfast.predict.step_graph import AgentStep, WorkflowGraph


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
    # C called last, and no agent has been called twice in a row. A is next, then B.
    assert 0.5 > rates["A"] > 1.5 * rates["B"] > 1.5 * rates["C"] > 0.0


def test_agent_that_repeats_itself_returns_by_its_own_pause() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    path = "own"
    for number in range(40):
        cache.now_s += 10.0
        path += chr(0x100 + number)
        cache.run(f"a{number}", hashes_of(path), identity=named("A", "w"))
        if number % 4 == 3:
            cache.run(f"b{number}", hashes_of("Bb" + path[-1]), identity=named("B", "w"))
    cache.run("last", hashes_of(path + "l"), identity=named("A", "w"))
    session = next(s for s in cache.runtime.sessions if s.identity.agent_id == "A")
    # Three of four calls of A are followed by another one of it.
    assert 0.5 * 0.4 < agents.use_rate(session, 0.5) < 0.5 * 0.9


def test_session_of_an_ended_workflow_is_expected_no_more() -> None:
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    run_debate(cache, 20)
    first, *_ = cache.runtime.sessions
    assert agents.use_rate(first, 0.5) > 0.02
    cache.runtime.command(EndWorkflow("", "w"))
    assert agents.use_rate(first, 0.5) == pytest.approx(0.02 * 0.5)


def test_streams_of_other_workflows_may_still_go_on() -> None:
    """Two workflows in turn, whose agents go on in each: no call ends another's stream."""
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    paths = {(name, workflow): (name + workflow) * 2 for name in "AB" for workflow in "wv"}
    for number in range(8):
        for (name, workflow), path in paths.items():
            cache.now_s += 10.0
            paths[name, workflow] = path + chr(0x100 + number)
            prompt = hashes_of(name * 3 + paths[name, workflow])
            cache.run(f"{name}{workflow}{number}", prompt, identity=named(name, workflow))
    assert len(cache.runtime.sessions) == 4
    for session in cache.runtime.sessions:
        agent = agents._calls[session].agent
        assert agent is not None and agent.statistics.continued_share == 1.0


def test_own_blocks_of_calls_that_never_go_on_go_first() -> None:
    """Agents in no order, each call a new prompt after the agent's prefix."""
    cache = Cache("holdfast", 200)
    for number, name in enumerate("ABBACABCCBAACBCA" * 2):
        cache.now_s += 10.0
        prompt = hashes_of(name * 4 + chr(0x100 + number))
        cache.run(f"r{number}", prompt, identity=named(name, "w"))
    cache.step()
    *_, latest = cache.runtime.sessions
    assert latest.tail.parent is not None
    policy = cache.eviction
    assert policy.priority(latest.tail)[1] < 0.1 * policy.priority(latest.tail.parent)[1]


def test_session_goes_by_the_graph_of_its_own_workflow() -> None:
    """Two workflows of one graph: what is next in one says nothing about the other."""
    cache = Cache("holdfast", 200)
    agents = cache.runtime.shared(RecurringAgents)
    for workflow in ("one", "two"):
        cache.runtime.declare_workflow("", workflow, ring("ABCDE"))
    for workflow, names in (("one", "AB"), ("two", "ABCDE")):
        for name in names:
            cache.at(cache.now_s + 1.0)
            prompt = hashes_of(workflow + name)
            cache.run(workflow + name, prompt, HUMAN, served_s=0.0, identity=named(name, workflow))
    first, *_ = cache.runtime.sessions
    # In "one" C is next and A four steps away; in "two" A is next.
    assert agents.use_rate(first, 0.0) == pytest.approx(1 / 4)


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
    # Its pause counts; one call of one agent may as well be all.
    assert agents.use_rate(other, 0.25) == pytest.approx(0.75 * 0.25)


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
