"""Workflows that applications declare to the runtime."""

from __future__ import annotations

from tests.policies.host import Cache, hashes_of

from holdfast.core.agents import AgentKey
from holdfast.core.identity import Identity
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
