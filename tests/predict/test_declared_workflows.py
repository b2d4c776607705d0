"""Declared workflows: progress by turns, the fewest steps of all, bounds."""

from __future__ import annotations

import pytest

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.agents import AgentKey
from holdfast.core.events import (
    PauseExplained,
    SessionClosed,
    SessionForgotten,
    TurnArrived,
    TurnEnded,
)
from holdfast.core.identity import Identity
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.core.turn import Turn
from holdfast.predict import declared_workflows
from holdfast.predict.declared_workflows import LEASE_S, DeclaredWorkflows
from holdfast.predict.features import GapFeatures
from holdfast.predict.step_graph import AgentStep, WorkflowGraph

TABLE = SessionTable(PrefixTree(), 1000)


def ring(agents: str) -> WorkflowGraph:
    """Agents in a circle; the first may begin."""
    return WorkflowGraph(
        tuple(AgentStep(name, (agents[i - 1],), entry=i == 0) for i, name in enumerate(agents))
    )


def session(agent: str | None, workflow: str | None = "w", tenant: str = "") -> Session:
    new = TABLE.add(None)
    new.identity = Identity(agent_id=agent, workflow_id=workflow, tenant=tenant)
    return new


def begin(workflows: DeclaredWorkflows, session: Session, now_s: float = 0.0) -> Session:
    workflows.follow(TurnArrived(now_s, Turn("r", session, 0, 0)))
    return session


def end(workflows: DeclaredWorkflows, session: Session, kind: str = "unknown") -> None:
    session.state = SessionState.HUMAN_AWAY if kind == "human" else SessionState.AT_TOOL
    session.gap = GapFeatures(kind)  # type: ignore[arg-type] # a kind
    workflows.follow(TurnEnded(0.0, Turn("r", session, 0, 0)))
    workflows.follow(PauseExplained(0.0, session))


def steps(workflows: DeclaredWorkflows, agents: str, tenant: str = "") -> list[int | None]:
    return [workflows.steps_to(AgentKey(tenant, agent_id=name)) for name in agents]


def declared(agents: str = "abc", workflow: str = "w", tenant: str = "") -> DeclaredWorkflows:
    workflows = DeclaredWorkflows()
    workflows.declare(tenant, workflow, ring(agents), 0.0)
    return workflows


def test_turns_move_the_frontier() -> None:
    workflows = declared()
    assert steps(workflows, "abc") == [1, 2, 3]
    first = begin(workflows, session("a"))
    assert steps(workflows, "abc") == [0, 1, 2]
    end(workflows, first)
    assert steps(workflows, "abc") == [3, 1, 2]
    begin(workflows, session("b"))
    assert steps(workflows, "abc") == [2, 0, 1]


def test_requests_without_ids_move_nothing() -> None:
    workflows = declared()
    for other in (session(None), session("a", None), session("a", "other"), session("a", "w", "t")):
        begin(workflows, other)
        end(workflows, other)
    assert steps(workflows, "abc") == [1, 2, 3]
    assert workflows.steps_to(AgentKey("", fingerprint=b"x")) is None


def test_agent_at_a_tool_runs_on() -> None:
    workflows = declared()
    first = begin(workflows, session("a"))
    end(workflows, first, "shell")
    assert steps(workflows, "abc") == [0, 1, 2]
    begin(workflows, first)
    graph = workflows.graph_of("", "w")
    assert graph is not None and graph.num_calls == 1
    end(workflows, first, "human")
    assert steps(workflows, "abc") == [3, 1, 2]


def test_tool_that_hands_over_ends_the_call() -> None:
    workflows = declared()
    first = begin(workflows, session("a"))
    end(workflows, first, "other")
    begin(workflows, session("b"))
    assert steps(workflows, "abc") == [2, 0, 1]
    end(workflows, first, "other")  # its turn's end is explained once more
    assert steps(workflows, "abc") == [2, 0, 1]


@pytest.mark.parametrize("event", [SessionClosed, SessionForgotten])
def test_ended_session_ends_its_call(event: type[SessionClosed] | type[SessionForgotten]) -> None:
    workflows = declared()
    first = begin(workflows, session("a"))
    end(workflows, first, "shell")
    workflows.follow(event(0.0, first))
    assert steps(workflows, "abc") == [3, 1, 2]
    workflows.follow(PauseExplained(0.0, first))  # an event that came too late
    assert steps(workflows, "abc") == [3, 1, 2]


def test_session_that_changes_its_agent_ends_the_call_before() -> None:
    workflows = declared()
    shared = begin(workflows, session("a"))
    end(workflows, shared, "shell")
    shared.identity = Identity(agent_id="b", workflow_id="w")
    begin(workflows, shared)
    assert steps(workflows, "abc") == [2, 0, 1]


def test_fewest_steps_of_all_workflows_count() -> None:
    workflows = declared("abc")
    workflows.declare("", "v", ring("cab"), 0.0)
    assert steps(workflows, "abc") == [1, 2, 1]
    begin(workflows, session("c", "v"))
    assert steps(workflows, "abc") == [1, 2, 0]
    assert workflows.end("", "w")
    assert steps(workflows, "abc") == [1, 2, 0]
    assert workflows.end("", "v") and not workflows.end("", "v")
    assert steps(workflows, "abc") == [None, None, None]
    assert AgentKey("", "a") not in workflows


def test_next_agents_come_from_all_workflows_by_steps() -> None:
    workflows = declared("abc")
    workflows.declare("t", "w", ring("xy"), 0.0)
    ahead = [(n, agent.tenant, agent.agent_id) for n, agent in workflows.next_agents(2)]
    assert ahead == [(1, "", "a"), (1, "t", "x"), (2, "", "b"), (2, "t", "y")]


def test_tenants_do_not_see_each_other() -> None:
    workflows = declared("abc", tenant="t")
    assert steps(workflows, "a") == [None]
    begin(workflows, session("a", tenant="u"))
    assert steps(workflows, "abc", "t") == [1, 2, 3]


def test_agents_whose_steps_rise_are_told_once() -> None:
    workflows = declared()
    first = begin(workflows, session("a"))
    assert workflows.take_receded() == []
    end(workflows, first)
    assert workflows.take_receded() == [AgentKey("", "a")]
    workflows.end("", "w")
    assert {agent.agent_id for agent in workflows.take_receded()} == {"a", "b", "c"}
    assert workflows.take_receded() == []


def test_workflow_that_calls_disagree_with_does_not_count() -> None:
    workflows = declared("abcd")
    for name in "cacaca":
        end(workflows, begin(workflows, session(name)))
    assert steps(workflows, "abcd") == [None] * 4
    for name in "bcdabcd":
        end(workflows, begin(workflows, session(name)))
    assert steps(workflows, "abcd") == [1, 2, 3, 4]
    workflows.end("", "w")
    assert AgentKey("", "a") not in workflows


def test_equal_declaration_keeps_progress() -> None:
    workflows = declared("abc")
    first = begin(workflows, session("b"))
    workflows.declare("", "w", ring("abc"), 0.0)
    assert steps(workflows, "abc") == [1, 0, 1]
    workflows.declare("", "w", ring("abcd"), 0.0)
    assert steps(workflows, "abcd") == [1, 0, 1, 2]
    end(workflows, first)
    assert steps(workflows, "abcd") == [1, 2, 1, 2]


def test_unused_workflow_is_forgotten() -> None:
    workflows = declared("abc")
    workflows.declare("", "v", ring("xy"), 0.0)
    begin(workflows, session("x", "v"), LEASE_S)
    workflows.declare("", "u", ring("z"), LEASE_S + 1.0)
    assert steps(workflows, "axz") == [None, 0, 1]
    assert len(workflows) == 2


def test_tenant_with_the_most_loses_its_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_workflows, "MAX_TOTAL_SIZE", 40)
    workflows = declared("ab", "small", "quiet")
    for number in range(100):
        workflows.declare("loud", f"w{number}", ring("abc"), 0.0)
    assert steps(workflows, "ab", "quiet") == [1, 2]
    assert len(workflows) == 7  # of size 6 each, and one of 4
    assert workflows.graph_of("loud", "w99") is not None
    assert workflows.graph_of("loud", "w0") is None


def test_number_of_workflows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared_workflows, "MAX_WORKFLOWS", 3)
    workflows = DeclaredWorkflows()
    for number in range(10):
        workflows.declare("", f"w{number}", ring("a"), 0.0)
    assert len(workflows) == 3


def test_nothing_is_left_after_all_has_ended() -> None:
    workflows = declared("abc")
    workflows.declare("", "v", ring("cb"), 0.0)
    sessions = [begin(workflows, session(name, "v")) for name in "cb"]
    end(workflows, sessions[0], "shell")
    workflows.end("", "w")
    workflows.end("", "v")
    workflows.take_receded()
    for other in sessions:
        workflows.follow(SessionForgotten(0.0, other))
    left = [book for book in vars(workflows).values() if isinstance(book, dict)]
    assert all(not book for book in left) and not list(workflows.next_agents(64))


def test_large_updates_are_settled_later(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(2000)]
    star = WorkflowGraph((AgentStep("hub"), *(AgentStep(name, ("hub",)) for name in names)))
    workflows = DeclaredWorkflows()
    workflows.declare("", "w", star, 0.0)
    hub = begin(workflows, session("hub"))
    for _ in range(2000):
        workflows.settle()
    assert {workflows.steps_to(AgentKey("", name)) for name in names} == {1}
    end(workflows, hub)
    assert {workflows.steps_to(AgentKey("", name)) for name in names} == {1}
