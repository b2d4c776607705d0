"""Sessions as calls of agents: which of them stands for its agent's next call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.policies.base import PolicyContext, users_of
from holdfast.predict.agent_transitions import AgentTransitions
from holdfast.predict.inter_arrival import CallStatistics, InterArrivalModel, RecurringAgent

__all__ = ["RecurringAgents"]

_STEPS_AHEAD = 16
_STEPS_ANNOUNCED = 2
_INTERVAL_WEIGHT = 0.3
_MAX_WORKFLOWS = 1024
_SOONEST_SHARE = 0.5  # of an interval
_CONTINUED_SHARE = 0.3
_SHARERS = 8


@dataclass(slots=True)
class _Call:
    """A session's first prompt.

    Attributes:
        arrived_s: When it came (s).
        agent: Whose it is, once that is known.
        end_blocks: Where the agent's own prefix ends.
    """

    arrived_s: float
    agent: RecurringAgent | None = None
    end_blocks: int = 0


class RecurringAgents:
    """Agents are the beginnings at which prompts of different sessions part.

    Where an agent's calls come regularly, or in an order that repeats, and few go on, its latest
    session stands for the next call: what they share is needed again when that is expected, and the
    rest of it is not.

    Args:
        scene: Where they are.
        calls: Empty; loses sessions that are forgotten.
    """

    def __init__(self, context: PolicyContext, calls: dict[Session, Any]) -> None:
        self._context = context
        self._inter_arrivals = InterArrivalModel()
        self._calls: dict[Session, _Call] = calls
        self._forgotten = CallStatistics()
        self._transitions: AgentTransitions[RecurringAgent] = AgentTransitions()
        # By workflow, when it called last (s); the longest ago foremost.
        self._called_s: OrderedDict[str | None, float] = OrderedDict()
        self._interval_s = 0.0
        self._due: dict[RecurringAgent, tuple[int, float]] = {}  # steps away, and when (s)

    def turn_arrived(self, session: Session) -> None:
        """Learn that a session begins or goes on. Mutates."""
        if session.num_turns > 1:
            call = self._calls.get(session)
            if session.num_turns == 2 and call is not None and call.agent is not None:
                self._inter_arrivals.observe_end(
                    call.agent, is_continued=True, is_answered=_is_answered(session)
                )
            return
        call = self._calls[session] = _Call(self._context.now_s)
        for node in session.tail.path():
            others = [s for s in islice(users_of(node), _SHARERS) if s is not session]
            before = [s for s in others if s in self._calls]
            if before:
                self._called(session, node, before)
                return

    def forgotten(self, session: Session) -> None:
        """Learn from a session that will not be mentioned again. Mutates."""
        self._forgotten.observe_end(is_continued=session.num_turns > 1, is_answered=False)

    def rate(self, session: Session, rate: float) -> float:
        """Expected uses a second of what a session holds, given its expected returns. Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None or not self._is_expected(call.agent):
            return rate
        if session.num_turns == 1:
            rate *= call.agent.statistics.continued_share
        if call.agent.latest is session:
            rate = max(rate, 1.0 / self._wait_s(call.agent))
        return rate

    def share(self, session: Session, node: Node[Any]) -> float:
        """Share of a session's rate that a run of it deserves (0 to 1). Pure."""
        call = self._calls.get(session)
        if call is None or call.agent is None or node.start < call.end_blocks:
            return 1.0
        is_stand_in = self._is_expected(call.agent) and call.agent.latest is session
        return call.agent.statistics.continued_share if is_stand_in else 1.0

    def goes_on(self, session: Session) -> bool:
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

    def coming(self) -> Iterator[Node[Any]]:
        """Ends of the prefixes whose agents are called next, soonest first. O(steps)."""
        for agent, (steps, _) in self._due.items():
            call = self._calls.get(agent.latest)
            if steps <= _STEPS_ANNOUNCED and call is not None:
                path = agent.latest.tail.path()
                yield from islice((node for node in path if node.start < call.end_blocks), 1)

    def _is_expected(self, agent: RecurringAgent) -> bool:
        return agent.is_regular or agent in self._due

    def _wait_s(self, agent: RecurringAgent) -> float:
        """Time until an agent's next call (s, > 0; inf if none is expected). Pure."""
        now_s = self._context.now_s
        wait_s = agent.wait_s(now_s)
        if agent in self._due:
            _, due_s = self._due[agent]
            wait_s = min(wait_s, max(due_s - now_s, _SOONEST_SHARE * self._interval_s))
        return wait_s

    def _note_order(self, workflow: str | None, agent: RecurringAgent) -> None:
        """Learn who is called after whom, and say who is next."""
        now_s = self._context.now_s
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

    def _called(self, session: Session, node: Node[Any], before: list[Session]) -> None:
        """Take note of an agent's call, behind whose prefix `before` parted earlier."""
        previous = max(before, key=lambda s: self._calls[s].arrived_s)
        before_s = self._calls[previous].arrived_s
        beginning = session.group, node.hashes[-1]
        agent = self._inter_arrivals.observe_call(beginning, self._context.now_s, before_s)
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
