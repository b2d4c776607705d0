"""Inter-arrival times of agents' calls, learned from prompts with the same prefix."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CallStatistics", "InterArrivalModel", "RecurringAgent"]

_MAX_AGENTS = 1024
_GAIN = 0.3  # weight of the latest observation
_TRUSTED_ERROR = 0.35  # mean error of log(inter-arrival time): a factor of 1.4
_UNKNOWN_ERROR = 1.0
_LEAST_ERROR = 0.05
_OVERDUE_RATIO = 1.5


@dataclass(slots=True)
class CallStatistics:
    """Regularity and continuation of an agent's calls; recent calls count most.

    Attributes:
        error: Mean error of log(inter-arrival time), each against those before it.
        continued_share: Share of calls that were continued before the next call (0 to 1).
        answered_continued_share: The same of calls whose first answer called no tool.
    """

    error: float = _UNKNOWN_ERROR
    continued_share: float = 1.0
    answered_continued_share: float = 1.0

    def observe_error(self, error: float) -> None:
        """Learn the error of one predicted inter-arrival time. Mutates."""
        self.error += _GAIN * (error - self.error)

    def observe_end(self, *, is_continued: bool, is_answered: bool) -> None:
        """Learn whether a call was continued before the next one. Mutates."""
        self.continued_share += _GAIN * (is_continued - self.continued_share)
        if is_answered:
            self.answered_continued_share += _GAIN * (is_continued - self.answered_continued_share)


@dataclass(slots=True, eq=False)
class RecurringAgent:
    """An agent and how regularly it is called.

    Attributes:
        called_s: When it was last called (s).
        statistics: Those of all agents until it has two inter-arrival times, then its own.
        inter_arrival_s: Typical time between its calls (s); 0 before it has been called twice.
        latest: Session of its last call; for the user of the model.
    """

    called_s: float
    statistics: CallStatistics
    inter_arrival_s: float = 0.0
    latest: Any = None

    @property
    def is_regular(self) -> bool:
        """Whether its calls have come when expected."""
        return self.inter_arrival_s > 0.0 and self.statistics.error < _TRUSTED_ERROR

    def wait_s(self, now_s: float) -> float:
        """Return the expected time until its next call (s). Pure.

        inf if it is not regular, or overdue by half an inter-arrival time.
        """
        waited_s = now_s - self.called_s
        if not self.is_regular or waited_s > _OVERDUE_RATIO * self.inter_arrival_s:
            return math.inf
        error = max(self.statistics.error, _LEAST_ERROR)
        return max(self.inter_arrival_s - waited_s, error * self.inter_arrival_s)


class InterArrivalModel:
    """Inter-arrival times of agents, each identified by a prompt prefix.

    An agent with one inter-arrival time counts as regular as all agents were recently. Knows no
    absolute time: scaling all times by a factor scales all answers by it.
    """

    def __init__(self) -> None:
        self._agents: OrderedDict[Hashable, RecurringAgent] = OrderedDict()
        self._statistics = CallStatistics()

    def __iter__(self) -> Iterator[RecurringAgent]:
        """All agents, least recently called first."""
        return iter(self._agents.values())

    def get(self, prefix: Hashable) -> RecurringAgent | None:
        """The agent with a prefix, or None. Pure."""
        return self._agents.get(prefix)

    def observe_call(self, prefix: Hashable, now_s: float, before_s: float) -> RecurringAgent:
        """Learn that a prompt with this prefix has arrived. Mutates.

        Args:
            prefix: Identifies the agent.
            now_s: Time now (s).
            before_s: Time of the agent's previous call, used if the agent is new (s).
        """
        agent = self._agents.get(prefix)
        if agent is None:
            agent = self._agents[prefix] = RecurringAgent(before_s, self._statistics)
            if len(self._agents) > _MAX_AGENTS:
                self._agents.popitem(last=False)
        self._agents.move_to_end(prefix)
        elapsed_s = now_s - agent.called_s
        agent.called_s = now_s
        if elapsed_s > 0.0 and agent.inter_arrival_s:
            error = abs(math.log(elapsed_s / agent.inter_arrival_s))
            if agent.statistics is self._statistics:
                agent.statistics = replace(self._statistics)
            agent.statistics.observe_error(error)
            self._statistics.observe_error(error)
            elapsed_s = math.sqrt(elapsed_s * agent.inter_arrival_s)
        agent.inter_arrival_s = elapsed_s or agent.inter_arrival_s
        return agent

    def observe_end(
        self, agent: RecurringAgent, *, is_continued: bool, is_answered: bool = False
    ) -> None:
        """Learn whether a call of the agent was continued before the next one. Mutates.

        Args:
            agent: The agent.
            is_continued: Whether it was continued.
            is_answered: Whether its first answer called no tool.
        """
        for statistics in {id(s): s for s in (agent.statistics, self._statistics)}.values():
            statistics.observe_end(is_continued=is_continued, is_answered=is_answered)
