"""Agents whose calls recur, and the session that stands for each one's next call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.agents import AgentKey
from holdfast.core.events import (
    Event,
    SessionForgotten,
    TurnArrived,
    TurnEnded,
    WorkflowEnded,
)
from holdfast.core.session import Session, SessionState
from holdfast.policies.base import Observer, PolicyContext, users_of
from holdfast.predict.agent_calls import ExpectedCall, Workload, agent_number
from holdfast.predict.agent_transitions import Agent
from holdfast.predict.inter_arrival import RecurringAgent

__all__ = ["RecurringAgents"]

_LEAST_PREFETCHED = 0.2  # probability of a call within two steps
_CONTINUED_SHARE = 0.3
_SHARERS = 8
_MAX_LATEST = 1024
_MAX_STREAMS = 1024
_STEPS_PREFETCHED = 2
_MAX_NEXT = 32
_MAX_RESCORED = 64
_SOONEST_STEPS = 0.5
_LIKELY = 0.5
_UNEXPECTED_SHARE = 0.02  # of returns, where an order tells of none


@dataclass(slots=True)
class _Call:
    """A session as calls of an agent.

    Attributes:
        arrived_s: When its first prompt arrived (s).
        workload: Of its tenant.
        key: The agent, if the client names it.
        number: Stands for the agent; 0 until another prompt shares its beginning.
        agent: The agent's statistics; None until then.
        end_blocks: Depth at which the agent's own prefix ends (blocks); 0 if not known.
        is_running: Whether its workload has been told of a call, and not of its answer.
    """

    arrived_s: float
    workload: Workload
    key: AgentKey | None = None
    number: int = 0
    agent: RecurringAgent | None = None
    end_blocks: int = 0
    is_running: bool = False


class RecurringAgents(Observer):
    """Takes the beginnings at which prompts of different sessions part for agents.

    Where an agent's calls come regularly, or in an order that repeats, and few sessions go on, its
    latest session stands for the next call: the shared prefix is needed when that call is expected,
    and the rest of the session's blocks is not. An agent or a workflow that the client names is
    known by that name; then each turn is a call, and the workflow's own session of an agent stands
    for its next call. Until the order of agents is known, an agent that is k steps away in a
    declared workflow is called in k times the typical time of a step.
    """

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._calls: dict[Session, _Call] = context.per_session()
        # By tenant and workflow, then by agent: the workflow's last session of the agent.
        self._latest: OrderedDict[Hashable, OrderedDict[Agent, Session]] = OrderedDict()
        for workload in context.agent_calls:
            workload.forget_positions()

    def observe(self, event: Event) -> None:
        """Learn from sessions that begin, go on, end, or are forgotten. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._turn_arrived(turn.session)
            case TurnEnded(turn=turn):
                self._turn_ended(turn.session)
            case SessionForgotten(session=session):
                self._forgotten(session)
            case WorkflowEnded(tenant=tenant, workflow_id=workflow_id):
                self._workflow_ended(tenant, (workflow_id,))

    def use_rate(self, session: Session, return_rate: float) -> float:
        """Expected use rate of a session's blocks, given its expected returns (1/s). Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None:
            return return_rate
        rate = return_rate
        if _names_workflow(session):
            rate = self._return_rate(session, call, return_rate)
        if not self._is_expected(call):
            return rate
        if session.num_turns == 1:
            rate *= call.agent.statistics.continued_share
        if call.agent.latest is session:
            rate = max(rate, self._call_rate(call, call.agent))
        return rate

    def share(self, session: Session, node: Node[Any]) -> float:
        """Share of a session's use rate that one of its nodes has (0 to 1). Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None or not call.end_blocks:
            return 1.0
        if node.start < call.end_blocks:
            return 1.0
        if self._is_expected(call):
            is_for_calls = call.agent.latest is session
        else:
            is_for_calls = _has_workflow(session) and session.num_turns == 1
        return call.agent.statistics.continued_share if is_for_calls else 1.0

    def prefix_rate(self, session: Session, node: Node[Any]) -> float:
        """Expected calls of a session's agent, for its own prefix (1/s, >= 0). Pure.

        Counts after the session has ended, too. 0 unless the session is the agent's latest and the
        node part of the agent's own prefix.
        """
        call = self._calls.get(session)
        if call is None or call.agent is None or call.agent.latest is not session:
            return 0.0
        is_known = node.start < call.end_blocks and self._is_expected(call)
        return self._call_rate(call, call.agent) if is_known else 0.0

    def may_go_on(self, session: Session) -> bool:
        """Whether a session may be continued, as far as its agent's calls tell. Pure."""
        call = self._calls.get(session)
        if session.num_turns > 1 or call is None:
            return True
        agent = call.agent
        if agent is not None and _is_answered(session):
            return agent.statistics.answered_continued_share >= _CONTINUED_SHARE
        is_known = agent is not None and self._is_expected(call)
        statistics = agent.statistics if agent is not None and is_known else call.workload.forgotten
        return statistics.continued_share >= _CONTINUED_SHARE

    def called_next(self) -> Iterator[Node[Any]]:
        """Last nodes of what the calls to come need, soonest first. O(workflows).

        Of a session that goes on all of it, else its agent's own prefix.
        """
        seen: set[Node[Any]] = set()
        for _, key in islice(self.context.workflows.next_agents(_STEPS_PREFETCHED), _MAX_NEXT):
            workload = self.context.agent_calls.find(key.tenant)
            if workload is None or workload.is_predictable:
                continue
            for node in self._prefix_of(_latest_of(workload, agent_number(key))):
                if node not in seen:
                    seen.add(node)
                    yield node
        upcoming = [
            (call.steps, call, workload)
            for workload in self.context.agent_calls
            for call in workload.upcoming(_LEAST_PREFETCHED, self.context.now_s)
        ]
        for _, expected, workload in sorted(upcoming, key=lambda entry: entry[0]):
            for node in self._needed(workload, expected):
                if node not in seen:
                    seen.add(node)
                    yield node

    def _needed(self, workload: Workload, expected: ExpectedCall) -> Iterator[Node[Any]]:
        """The last node of what an expected call needs, if it is known."""
        session = self._streams(workload, expected.workflow).get(expected.agent)
        if session is not None and session.state.is_paused and session.num_turns > 1:
            yield session.tail
            return
        yield from self._prefix_of(_latest_of(workload, expected.agent))

    def _prefix_of(self, latest: Session | None) -> Iterator[Node[Any]]:
        """The last node of the prefix of an agent whose latest session is known, if any."""
        call = None if latest is None else self._calls.get(latest)
        if latest is not None and call is not None:
            yield from islice((n for n in latest.tail.path() if n.start < call.end_blocks), 1)

    # Learn.

    def _turn_arrived(self, session: Session) -> None:
        call = self._calls.get(session)
        if session.num_turns == 1:
            workload = self.context.agent_calls.of(session.tenant)
            call = self._calls[session] = _Call(self.context.now_s, workload)
            self._find_agent(session, call)
        elif session.num_turns == 2 and call is not None and call.agent is not None:
            call.workload.inter_arrivals.observe_end(
                call.agent, is_continued=True, is_answered=_is_answered(session)
            )
        if call is None or call.agent is None:
            return
        call.key = AgentKey.of(session.identity, None)
        if session.num_turns == 1 or _names_workflow(session):
            workflow = _workflow_of(session)
            call.workload.called(workflow, call.number, self.context.now_s)
            call.is_running = True
            self._set_latest(session, call)
            if _names_workflow(session):
                self._rescore(call.workload, workflow)

    def _turn_ended(self, session: Session) -> None:
        call = self._calls.get(session)
        if call is not None and call.is_running:
            call.is_running = False
            call.workload.answered(_workflow_of(session), self.context.now_s)

    def _workflow_ended(self, tenant: str, workflow: Hashable) -> None:
        workload = self.context.agent_calls.find(tenant)
        if workload is not None:
            workload.ended(workflow)
            self._rescore(workload, workflow)

    def _rescore(self, workload: Workload, workflow: Hashable) -> None:
        """Have the streams of a workflow that has moved on rescored, the latest ones."""
        streams = self._streams(workload, workflow)
        for session in islice(reversed(streams.values()), _MAX_RESCORED):
            self.context.rescore(session)

    def _streams(self, workload: Workload, workflow: Hashable) -> OrderedDict[Agent, Session]:
        """The last session of each agent that a workflow has called."""
        return self._latest.get((workload, workflow)) or OrderedDict()

    def _find_agent(self, session: Session, call: _Call) -> None:
        """Find the agent of a first prompt, by its name or a shared beginning."""
        key = AgentKey.of(session.identity, None)
        number = 0 if key is None else agent_number(key)
        for node in session.tail.path():
            others = [s for s in islice(users_of(node), _SHARERS) if s is not session]
            before = [s for s in others if s in self._calls]
            if number:
                before = [s for s in before if self._calls[s].number == number]
            if before:
                key = key or AgentKey(session.tenant, fingerprint=node.hashes[-1])
                self._note_call(session, node, before, agent_number(key))
                return
        if number:
            self._note_first_call(session, call, number)

    def _note_first_call(self, session: Session, call: _Call, number: int) -> None:
        """Learn a named agent's call where no earlier call of it shares a block."""
        now_s = self.context.now_s
        call.number = number
        call.agent = call.workload.inter_arrivals.observe_call(number, now_s, now_s)
        call.agent.latest = session

    def _note_call(
        self, session: Session, node: Node[Any], before: list[Session], number: int
    ) -> None:
        """Learn an agent's call; `before` are earlier sessions that share its prefix."""
        previous = max(before, key=lambda s: self._calls[s].arrived_s)
        before_s = self._calls[previous].arrived_s
        inter_arrivals = self._calls[session].workload.inter_arrivals
        agent = inter_arrivals.observe_call(number, self.context.now_s, before_s)
        latest = agent.latest if agent.latest in self._calls else previous
        if _has_workflow(session):
            streams = self._streams(self._calls[session].workload, _workflow_of(session))
            latest = streams.get(number, latest)
        if latest.num_turns == 1 and not self._may_be_continued(latest, session):
            is_answered = latest.state is SessionState.HUMAN_AWAY
            inter_arrivals.observe_end(agent, is_continued=False, is_answered=is_answered)
        agent.latest = session
        for caller in (previous, session):
            call = self._calls[caller]
            if call.agent is None:
                call.agent, call.number = agent, number
            if call.agent is agent and not call.end_blocks:
                call.end_blocks = node.end

    def _may_be_continued(self, earlier: Session, session: Session) -> bool:
        """Whether another workflow's stream may go on after a call in this one."""
        workflow = _workflow_of(earlier)
        if not _has_workflow(earlier) or workflow == _workflow_of(session):
            return False
        workload = self._calls[earlier].workload
        return workload.share_going_on(workflow, self.context.now_s) >= _LIKELY

    def _set_latest(self, session: Session, call: _Call) -> None:
        key = call.workload, _workflow_of(session)
        streams = self._latest.setdefault(key, OrderedDict())
        self._latest.move_to_end(key)
        streams[call.number] = session
        streams.move_to_end(call.number)
        if len(streams) > _MAX_STREAMS:
            streams.popitem(last=False)
        if len(self._latest) > _MAX_LATEST:
            self._latest.popitem(last=False)

    def _forgotten(self, session: Session) -> None:
        call = self._calls.get(session)
        if call is None:
            return
        call.workload.forgotten.observe_end(is_continued=session.num_turns > 1, is_answered=False)
        key = call.workload, _workflow_of(session)
        streams = self._latest.get(key)
        if streams is not None and streams.get(call.number) is session:
            del streams[call.number]
            if not streams:
                del self._latest[key]
        if call.agent is not None and call.agent.latest is session:
            call.agent.latest = None

    # Expect.

    def _return_rate(self, session: Session, call: _Call, return_rate: float) -> float:
        """Expected returns of a session by its workflow's order or graph (1/s). Pure."""
        workflow = _workflow_of(session)
        if self._streams(call.workload, workflow).get(call.number) is not session:
            return return_rate
        rate = call.workload.call_rate_in(workflow, call.number, self.context.now_s)
        if rate is None:
            rate = self._declared_return_rate(session, call)
        if rate is None:
            return return_rate * call.workload.share_going_on(workflow, self.context.now_s)
        repeats = call.workload.repeat_share(workflow, call.number)
        return max(rate, max(repeats, _UNEXPECTED_SHARE) * return_rate)

    def _declared_return_rate(self, session: Session, call: _Call) -> float | None:
        """The same by the graph declared for the workflow; None if none counts."""
        identity, interval_s = session.identity, call.workload.interval_s
        if identity.workflow_id is None or identity.agent_id is None or interval_s <= 0.0:
            return None
        graph = self.context.workflows.graph_of(identity.tenant, identity.workflow_id)
        if graph is None or not graph.is_trusted or identity.agent_id not in graph:
            return None
        return _rate_of(graph.steps_to(identity.agent_id), interval_s)

    def _is_expected(self, call: _Call) -> bool:
        is_regular = call.agent is not None and call.agent.is_regular
        if is_regular or call.workload.is_expected(call.number):
            return True
        return self._declared_rate(call) > 0.0

    def _call_rate(self, call: _Call, agent: RecurringAgent) -> float:
        """Expected calls of an agent, by order, regularity or graph (1/s, >= 0). Pure."""
        now_s = self.context.now_s
        by_order = call.workload.call_rate(call.number, now_s) or self._declared_rate(call)
        return max(1.0 / agent.wait_s(now_s), by_order)

    def _declared_rate(self, call: _Call) -> float:
        """Expected calls of an agent by its declared workflows (1/s); 0 if unknown. Pure."""
        workflows, interval_s = self.context.workflows, call.workload.interval_s
        if call.key is None or not workflows or interval_s <= 0.0:
            return 0.0
        return _rate_of(workflows.steps_to(call.key), interval_s)


def _rate_of(steps: int | None, interval_s: float) -> float:
    """Calls a second of an agent that is so many steps away; 0 if that is unknown."""
    return 0.0 if steps is None else 1.0 / (max(steps, _SOONEST_STEPS) * interval_s)


def _names_workflow(session: Session) -> bool:
    """Whether the client names the session's agent or workflow."""
    return session.identity.agent_id is not None or session.identity.workflow_id is not None


def _has_workflow(session: Session) -> bool:
    """Whether the client names the session's workflow."""
    return session.identity.workflow_id is not None


def _latest_of(workload: Workload, number: int) -> Session | None:
    """The latest session of an agent."""
    agent = workload.inter_arrivals.get(number)
    return None if agent is None else agent.latest


def _workflow_of(session: Session) -> Hashable:
    """What a session's calls follow each other in: its workflow, else its explicit id."""
    workflow_id = session.identity.workflow_id
    return session.group if workflow_id is None else (workflow_id,)


def _is_answered(session: Session) -> bool:
    """Whether the last answer of a session called no tool."""
    return session.gap is not None and session.gap.kind == "human"
