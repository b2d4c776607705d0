"""Workflows that applications declare to the runtime."""

from __future__ import annotations

from tests.policies.host import Cache, hashes_of

from holdfast.core.agents import AgentKey
from holdfast.core.commands import EndWorkflow
from holdfast.core.events import Event, WorkflowEnded
from holdfast.core.identity import Identity
from holdfast.core.session import SessionState
from holdfast.predict.step_graph import AgentStep, WorkflowGraph

GRAPH = WorkflowGraph((AgentStep("a"), AgentStep("b", ("a",)), AgentStep("c", ("b",))))


def steps(cache: Cache) -> list[int | None]:
    return [cache.runtime.workflows.steps_to(AgentKey("", name)) for name in "abc"]


def arrive(cache: Cache, agent: str) -> None:
    identity = Identity(agent_id=agent, workflow_id="w")
    cache.runtime.turn_arrived(agent, hashes_of(agent * 3), identity)


def test_turns_move_a_declared_workflow_on() -> None:
    cache = Cache("vllm-default", 10)
    cache.runtime.declare_workflow("", "w", GRAPH)
    arrive(cache, "a")
    assert steps(cache) == [0, 1, 2]
    arrive(cache, "b")
    assert steps(cache) == [0, 0, 1]


def test_ended_workflow_does_not_count() -> None:
    cache = Cache("vllm-default", 10)
    cache.runtime.declare_workflow("t", "w", GRAPH)
    assert cache.runtime.end_workflow("t", "w")
    assert not cache.runtime.end_workflow("t", "w")
    assert len(cache.runtime.workflows) == 0


def test_dropped_content_ends_calls_and_keeps_declarations() -> None:
    cache = Cache("vllm-default", 10)
    cache.runtime.declare_workflow("", "w", GRAPH)
    arrive(cache, "a")
    cache.runtime.content_dropped()
    assert steps(cache) == [None, 1, 2]
    arrive(cache, "b")
    assert steps(cache) == [None, 0, 1]


def test_end_closes_streams_of_the_workflow_without_an_id() -> None:
    cache = Cache("holdfast", 40)
    shown: list[Event] = []
    cache.runtime.listener = shown.append
    cache.run("a", hashes_of("aaaa"), identity=Identity(agent_id="a", workflow_id="w"))
    cache.run("b", hashes_of("bbbb"), identity=Identity(session_id="s", workflow_id="w"))
    cache.run("c", hashes_of("cccc"), identity=Identity(agent_id="a", workflow_id="other"))
    cache.run("d", hashes_of("dddd"), identity=Identity("s2", workflow_id="w", tenant="t"))
    identity = Identity(agent_id="e", workflow_id="w")
    running = cache.arrive("e", hashes_of("eeee"), identity=identity)
    assert cache.runtime.command(EndWorkflow("", "w")).is_applied
    assert shown[-2] == WorkflowEnded(cache.runtime.now_s, "", "w")
    states = [session.state for session in cache.runtime.sessions]
    assert states[0] is SessionState.CLOSED
    assert SessionState.CLOSED not in states[1:]
    cache.step()
    cache.start(running)
    cache.end(running, None)
    assert running.session.state is SessionState.CLOSED


def test_end_of_an_unknown_workflow_is_refused() -> None:
    cache = Cache("holdfast", 40)
    assert cache.runtime.command(EndWorkflow("", "w")).outcome == "unknown_workflow"
    cache.run("a", hashes_of("aaaa"), identity=Identity(workflow_id="w"))
    assert cache.runtime.command(EndWorkflow("other", "w")).outcome == "unknown_workflow"
    assert cache.runtime.command(EndWorkflow("", "w")).is_applied
