"""Agents whose calls recur, and the session that stands for each one's next call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, SessionForgotten, TurnArrived
from holdfast.core.session import Session, SessionState
from holdfast.policies.base import Observer, PolicyContext, users_of
from holdfast.predict.agent_transitions import AgentTransitions
from holdfast.predict.inter_arrival import CallStatistics, InterArrivalModel, RecurringAgent

__all__ = ["RecurringAgents"]

_STEPS_AHEAD = 16
_STEPS_PREFETCHED = 2
_INTERVAL_WEIGHT = 0.3
_MAX_WORKFLOWS = 1024
_SOONEST_SHARE = 0.5  # of an interval
_CONTINUED_SHARE = 0.3
_SHARERS = 8


@dataclass(slots=True)
class _Call:
    """A session's first prompt.

    Attributes:
        arrived_s: When it arrived (s).
        agent: The agent that it calls; None until another prompt shares its beginning.
        end_blocks: Depth at which the agent's own prefix ends (blocks).
    """

    arrived_s: float
    agent: RecurringAgent | None = None
    end_blocks: int = 0


class RecurringAgents(Observer):
    """Takes the beginnings at which prompts of different sessions part for agents.

    Where an agent's calls come regularly, or in an order that repeats, and few sessions go on, its
    latest session stands for the next call: the shared prefix is needed when that call is expected,
    and the rest of the session's blocks is not.
    """

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._inter_arrivals = InterArrivalModel()
        self._calls: dict[Session, _Call] = context.per_session()
        self._forgotten = CallStatistics()
        self._transitions: AgentTransitions[RecurringAgent] = AgentTransitions()
        # By workflow, when it called last (s); the longest ago first.
        self._called_s: OrderedDict[str | None, float] = OrderedDict()
        self._interval_s = 0.0
        self._due: dict[RecurringAgent, tuple[int, float]] = {}  # steps ahead, and when (s)

    def observe(self, event: Event) -> None:
        """Learn from sessions that begin, go on, or are forgotten. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._turn_arrived(turn.session)
            case SessionForgotten(session=session):
                is_continued = session.num_turns > 1
                self._forgotten.observe_end(is_continued=is_continued, is_answered=False)

    def use_rate(self, session: Session, return_rate: float) -> float:
        """Expected use rate of a session's blocks, given its expected returns (1/s). Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None or not self._is_expected(call.agent):
            return return_rate
        if session.num_turns == 1:
            return_rate *= call.agent.statistics.continued_share
        if call.agent.latest is session:
            return_rate = max(return_rate, 1.0 / self._wait_s(call.agent))
        return return_rate

    def share(self, session: Session, node: Node[Any]) -> float:
        """Share of a session's use rate that one of its nodes has (0 to 1). Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None or node.start < call.end_blocks:
            return 1.0
        is_stand_in = self._is_expected(call.agent) and call.agent.latest is session
        return call.agent.statistics.continued_share if is_stand_in else 1.0

    def may_go_on(self, session: Session) -> bool:
        """Whether a session may be continued, as far as its agent's calls tell. Pure."""
        call = self._calls.get(session)
        if session.num_turns > 1 or call is None:
            return True
        agent = call.agent
        if agent is not None and _is_answered(session):
            return agent.statistics.answered_continued_share >= _CONTINUED_SHARE
        is_known = agent is not None and self._is_expected(agent)
        statistics = agent.statistics if agent is not None and is_known else self._forgotten
        return statistics.continued_share >= _CONTINUED_SHARE

    def called_next(self) -> Iterator[Node[Any]]:
        """Last nodes of the prefixes of agents called next, soonest first. O(steps)."""
        for agent, (steps, _) in self._due.items():
            call = self._calls.get(agent.latest)
            if steps <= _STEPS_PREFETCHED and call is not None:
                path = agent.latest.tail.path()
                yield from islice((node for node in path if node.start < call.end_blocks), 1)

    def _turn_arrived(self, session: Session) -> None:
        if session.num_turns > 1:
            call = self._calls.get(session)
            if session.num_turns == 2 and call is not None and call.agent is not None:
                self._inter_arrivals.observe_end(
                    call.agent, is_continued=True, is_answered=_is_answered(session)
                )
            return
        call = self._calls[session] = _Call(self.context.now_s)
        for node in session.tail.path():
            others = [s for s in islice(users_of(node), _SHARERS) if s is not session]
            before = [s for s in others if s in self._calls]
            if before:
                self._note_call(session, node, before)
                return

    def _is_expected(self, agent: RecurringAgent) -> bool:
        return agent.is_regular or agent in self._due

    def _wait_s(self, agent: RecurringAgent) -> float:
        """Time until an agent's next call (s, > 0; inf if none is expected). Pure."""
        now_s = self.context.now_s
        wait_s = agent.wait_s(now_s)
        if agent in self._due:
            _, due_s = self._due[agent]
            wait_s = min(wait_s, max(due_s - now_s, _SOONEST_SHARE * self._interval_s))
        return wait_s

    def _note_order(self, workflow: str | None, agent: RecurringAgent) -> None:
        """Learn which agent follows which, and predict the next ones."""
        now_s = self.context.now_s
        interval_s = now_s - self._called_s.pop(workflow, now_s)
        self._called_s[workflow] = now_s
        if len(self._called_s) > _MAX_WORKFLOWS:
            self._called_s.popitem(last=False)
        if interval_s > 0.0:
            self._interval_s += _INTERVAL_WEIGHT * (interval_s - self._interval_s)
        self._transitions.observe(workflow, agent)
        self._due = {}
        if self._interval_s > 0.0:
            for steps, following in self._transitions.predict(_STEPS_AHEAD):
                self._due[following] = steps, now_s + steps * self._interval_s

    def _note_call(self, session: Session, node: Node[Any], before: list[Session]) -> None:
        """Learn an agent's call; `before` are earlier sessions that share its prefix."""
        previous = max(before, key=lambda s: self._calls[s].arrived_s)
        before_s = self._calls[previous].arrived_s
        beginning = session.group, node.hashes[-1]
        agent = self._inter_arrivals.observe_call(beginning, self.context.now_s, before_s)
        latest = agent.latest or previous
        if latest.num_turns == 1:
            is_answered = latest.state is SessionState.HUMAN_AWAY
            self._inter_arrivals.observe_end(agent, is_continued=False, is_answered=is_answered)
        agent.latest = session
        self._note_order(session.group, agent)
        for caller in (previous, session):
            call = self._calls[caller]
            if call.agent is None:
                call.agent, call.end_blocks = agent, node.end


def _is_answered(session: Session) -> bool:
    """Whether the last answer of a session called no tool."""
    return session.gap is not None and session.gap.kind == "human"
