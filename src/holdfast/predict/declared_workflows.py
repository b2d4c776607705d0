"""The workflows that applications have declared, and how far each has run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final

from holdfast.core.agents import AgentKey
from holdfast.core.events import (
    Event,
    PauseExplained,
    SessionClosed,
    SessionForgotten,
    TurnArrived,
    TurnEnded,
)
from holdfast.core.session import Session, SessionState
from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.predict.step_graph import MAX_STEPS, StepGraph

__all__ = ["MAX_TOTAL_SIZE", "MAX_WORKFLOWS", "DeclaredWorkflows", "WorkflowStatus"]

MAX_WORKFLOWS: Final = 4096
MAX_TOTAL_SIZE: Final = 120_000
"""Agents and edges of all workflows together (count)."""

LEASE_S: Final = 3600.0
"""Time without a call or a declaration after which a workflow is forgotten (s)."""

_Key = tuple[str, str]  # tenant and workflow id


@dataclass(slots=True, eq=False)
class _Workflow:
    """A running workflow.

    Attributes:
        tenant: Its fairness domain.
        steps: Its graph.
        used_s: Its last call or declaration (s).
        is_trusted: Whether its steps count.
        calls: Agents of the sessions whose calls have not ended.
        paused: Agents of the sessions that have paused, and after which none has begun.
    """

    tenant: str
    steps: StepGraph
    used_s: float
    is_trusted: bool = True
    calls: dict[Session, str] = field(default_factory=dict)
    paused: dict[Session, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """A declared workflow, for reports.

    Attributes:
        tenant: Its fairness domain.
        workflow_id: Unique within the tenant.
        num_agents: Agents of its graph (count).
        is_trusted: Whether its steps count; false where most calls disagree with the graph.
        running: Agents whose calls have not ended, each once.
    """

    tenant: str
    workflow_id: str
    num_agents: int
    is_trusted: bool
    running: tuple[str, ...]


class DeclaredWorkflows:
    """Steps to execution of agents: the fewest of all declared workflows.

    A call begins when a turn with the workflow's and the agent's id arrives. It ends with that
    turn, unless the turn ends with a tool call: then the agent runs on until its session ends, or
    until an agent begins that may follow it, as a call of a tool may hand over to another agent.

    A workflow whose graph most calls disagree with does not count. One without a call for an hour
    is forgotten; beyond a total size the tenant with the most loses the one unused the longest.
    """

    def __init__(self) -> None:
        self._workflows: OrderedDict[_Key, _Workflow] = OrderedDict()  # unused the longest first
        self._sizes: dict[str, int] = {}  # by tenant
        self._workflow_of: dict[Session, _Key] = {}  # of sessions whose calls have not ended
        self._counts: dict[AgentKey, dict[int | None, int]] = {}  # workflows by steps
        self._at: list[dict[AgentKey, None]] = [{} for _ in range(MAX_STEPS + 1)]
        self._unsettled: dict[_Key, None] = {}
        self._receded: dict[AgentKey, None] = {}

    def __len__(self) -> int:
        """Declared workflows (count)."""
        return len(self._workflows)

    def __contains__(self, agent: object) -> bool:
        """Whether a declared workflow that counts has the agent."""
        return agent in self._counts

    def graph_of(self, tenant: str, workflow_id: str) -> StepGraph | None:
        """The step graph of a workflow; None if it is not declared. Pure."""
        workflow = self._workflows.get((tenant, workflow_id))
        return None if workflow is None else workflow.steps

    def statuses(self) -> Iterator[WorkflowStatus]:
        """Yield every declared workflow, the latest used first. Pure."""
        for (tenant, workflow_id), workflow in reversed(self._workflows.items()):
            running = tuple(dict.fromkeys(workflow.calls.values()))
            num_agents = len(workflow.steps.graph.agents)
            yield WorkflowStatus(tenant, workflow_id, num_agents, workflow.is_trusted, running)

    def steps_to(self, agent: Hashable) -> int | None:
        """Fewest steps until an agent may run, 0 while it runs; None if unknown. Pure."""
        counts = self._counts.get(agent)  # type: ignore[call-overload] # any hashable may be asked
        return None if counts is None else _fewest(counts)

    def next_agents(self, max_steps: int) -> Iterator[tuple[int, AgentKey]]:
        """Yield agents within so many steps, with their steps, fewest first. Pure."""
        for steps in range(1, min(max_steps, MAX_STEPS) + 1):
            for agent in self._at[steps]:
                yield steps, agent

    def take_receded(self) -> list[AgentKey]:
        """Agents that have more steps, or unknown ones, since last asked. Mutates."""
        receded, self._receded = list(self._receded), {}
        return receded

    def declare(self, tenant: str, workflow_id: str, graph: WorkflowGraph, now_s: float) -> None:
        """Declare a workflow, or another graph of one. Mutates.

        An equal graph keeps what has run, and renews the lease.
        """
        key = tenant, workflow_id
        self._forget_unused(now_s)
        old = self._workflows.get(key)
        if old is not None and old.steps.graph == graph:
            self._use(key, old, now_s)
            return
        calls = {} if old is None else dict(old.calls)
        self.end(tenant, workflow_id)
        workflow = self._workflows[key] = _Workflow(tenant, StepGraph(graph), now_s)
        self._sizes[tenant] = self._sizes.get(tenant, 0) + graph.size
        self._trust(workflow, is_trusted=True)
        for session, agent_id in calls.items():
            self._begin(key, workflow, session, agent_id, is_call=False)
        while len(self._workflows) > MAX_WORKFLOWS or sum(self._sizes.values()) > MAX_TOTAL_SIZE:
            self._forget_largest()

    def end(self, tenant: str, workflow_id: str) -> bool:
        """Forget a workflow; returns whether it was declared. Mutates."""
        key = tenant, workflow_id
        workflow = self._workflows.pop(key, None)
        if workflow is None:
            return False
        self._unsettled.pop(key, None)
        for session in workflow.calls:
            self._workflow_of.pop(session, None)
        self._apply(workflow)
        if workflow.is_trusted:
            self._trust(workflow, is_trusted=False)
        self._sizes[tenant] -= workflow.steps.graph.size
        if not self._sizes[tenant]:
            del self._sizes[tenant]
        return True

    def follow(self, event: Event) -> None:
        """Take in how turns begin and end. Mutates; O(1) for sessions without a workflow."""
        match event:
            case TurnArrived(time_s=now_s, turn=turn):
                self._turn_arrived(turn.session, now_s)
            case TurnEnded(turn=turn):
                self._pause(turn.session)
            case PauseExplained(session=session) if _is_at_tool(session):
                self._go_on(session)
            case SessionClosed(session=session) | SessionForgotten(session=session):
                self._stop(session)
                self._forget(session)

    def settle(self) -> None:
        """Settle agents that the last updates have left for later. Mutates."""
        for key in list(self._unsettled):
            workflow = self._workflows[key]
            if workflow.steps.settle():
                del self._unsettled[key]
            self._apply(workflow)

    def _turn_arrived(self, session: Session, now_s: float) -> None:
        identity = session.identity
        if not self._workflows:
            return
        key = identity.tenant, identity.workflow_id or ""
        workflow = self._workflows.get(key)
        agent_id = identity.agent_id
        is_same = self._workflow_of.get(session) == key
        if is_same and workflow is not None and workflow.calls[session] == agent_id:
            workflow.paused.pop(session, None)
            self._use(key, workflow, now_s)
            return
        self._stop(session)
        self._forget(session)
        if workflow is not None and agent_id is not None:
            self._use(key, workflow, now_s)
            self._begin(key, workflow, session, agent_id)

    def _begin(
        self,
        key: _Key,
        workflow: _Workflow,
        session: Session,
        agent_id: str,
        *,
        is_call: bool = True,
    ) -> None:
        """Begin a call, or go on with one; agents at a tool that it may follow have ended."""
        if is_call and workflow.paused:
            before = set(workflow.steps.agents_before(agent_id))
            for other in [o for o, paused in workflow.paused.items() if paused in before]:
                self._stop(other)
                del workflow.paused[other]
        workflow.calls[session] = agent_id
        self._workflow_of[session] = key
        if is_call:
            workflow.steps.began(agent_id)
        else:
            workflow.steps.resumed(agent_id)
        self._updated(key, workflow)

    def _stop(self, session: Session) -> None:
        """End a session's call, if it has one."""
        key = self._workflow_of.pop(session, None)
        if key is None:
            return
        workflow = self._workflows[key]
        workflow.steps.ended(workflow.calls.pop(session))
        self._updated(key, workflow)

    def _pause(self, session: Session) -> None:
        """End a session's call with its turn; it may turn out to be at a tool."""
        key = self._workflow_of.get(session)
        if key is not None:
            workflow = self._workflows[key]
            workflow.paused[session] = workflow.calls[session]
            self._stop(session)

    def _go_on(self, session: Session) -> None:
        """Take in that a session is at a tool, unless its workflow has moved on."""
        identity = session.identity
        key = identity.tenant, identity.workflow_id or ""
        workflow = self._workflows.get(key)
        if workflow is None or session in self._workflow_of:
            return
        agent_id = workflow.paused.get(session)
        if agent_id is not None:
            self._begin(key, workflow, session, agent_id, is_call=False)

    def _forget(self, session: Session) -> None:
        """Forget the pause of a session. O(1)."""
        identity = session.identity
        workflow = self._workflows.get((identity.tenant, identity.workflow_id or ""))
        if workflow is not None:
            workflow.paused.pop(session, None)

    def _use(self, key: _Key, workflow: _Workflow, now_s: float) -> None:
        workflow.used_s = now_s
        self._workflows.move_to_end(key)

    def _updated(self, key: _Key, workflow: _Workflow) -> None:
        if not workflow.steps.settle(0):
            self._unsettled[key] = None
        self._apply(workflow)
        if workflow.is_trusted == workflow.steps.is_trusted:
            return
        self._trust(workflow, is_trusted=workflow.steps.is_trusted)

    def _trust(self, workflow: _Workflow, *, is_trusted: bool) -> None:
        """Let a workflow's steps count, or not any more. O(agents)."""
        workflow.is_trusted = is_trusted
        workflow.steps.take_changes()
        for step in workflow.steps.graph.agents:
            agent = AgentKey(workflow.tenant, step.agent_id)
            steps = workflow.steps.steps_to(step.agent_id)
            if is_trusted:
                self._count(agent, None, steps, is_new=True)
            else:
                self._uncount(agent, steps)

    def _apply(self, workflow: _Workflow) -> None:
        """Take over the steps that have changed in a workflow."""
        changes = workflow.steps.take_changes()
        if not workflow.is_trusted:
            return
        for agent_id, before in changes.items():
            agent = AgentKey(workflow.tenant, agent_id)
            self._count(agent, before, workflow.steps.steps_to(agent_id))

    def _count(
        self, agent: AgentKey, before: int | None, after: int | None, *, is_new: bool = False
    ) -> None:
        """Count other steps of an agent in a workflow, or one more that has it."""
        counts = self._counts.setdefault(agent, {})
        fewest = _fewest(counts)
        if not is_new:
            _take_one(counts, before)
        counts[after] = counts.get(after, 0) + 1
        self._move(agent, fewest, _fewest(counts))

    def _uncount(self, agent: AgentKey, steps: int | None) -> None:
        """Count one workflow less that has an agent."""
        counts = self._counts[agent]
        fewest = _fewest(counts)
        _take_one(counts, steps)
        self._move(agent, fewest, _fewest(counts))
        if not counts:
            del self._counts[agent]

    def _move(self, agent: AgentKey, before: int | None, after: int | None) -> None:
        if before == after:
            return
        if before is not None:
            self._at[before].pop(agent, None)
            if after is None or after > before:
                self._receded[agent] = None
        if after is not None:
            self._at[after][agent] = None

    def _forget_unused(self, now_s: float) -> None:
        while self._workflows:
            (tenant, workflow_id), oldest = next(iter(self._workflows.items()))
            if now_s - oldest.used_s <= LEASE_S:
                return
            self.end(tenant, workflow_id)

    def _forget_largest(self) -> None:
        """Forget the longest unused workflow of the tenant with the most. O(workflows)."""
        largest = max(self._sizes, key=lambda tenant: self._sizes[tenant])
        workflow_id = next(name for tenant, name in self._workflows if tenant == largest)
        self.end(largest, workflow_id)


def _fewest(counts: dict[int | None, int]) -> int | None:
    return min((steps for steps in counts if steps is not None), default=None)


def _take_one(counts: dict[int | None, int], steps: int | None) -> None:
    counts[steps] -= 1
    if not counts[steps]:
        del counts[steps]


def _is_at_tool(session: Session) -> bool:
    is_known = session.gap is not None and session.gap.kind not in ("human", "unknown")
    return session.state is SessionState.AT_TOOL and is_known
