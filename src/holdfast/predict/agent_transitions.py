"""Transitions between agents, learned from the order of their calls."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["AgentTransitions"]

_MAX_AGENTS = 1024
_TRANSITION_MEMORY = 0.8
_LIKELY_SHARE = 0.6
_PRIOR_WEIGHT = 0.5  # of transitions not seen yet, in calls
_ACCURACY_GAIN = 0.2

Agent = TypeVar("Agent", bound=Hashable)


class AgentTransitions(Generic[Agent]):
    """First-order transitions between agents, one sequence of calls for each workflow.

    Each call is predicted before it is learned, and `predict` yields agents only while most recent
    predictions were right. Knows no time.

    Source: transitions learned online as in CacheSage (arXiv 2605.27744), for the steps to
    execution of KVFlow (arXiv 2507.07400). Differs: nothing is declared; predictions earn trust.
    """

    def __init__(self) -> None:
        self._weights: OrderedDict[Agent, Counter[Agent]] = OrderedDict()
        self._last: OrderedDict[Hashable, Agent] = OrderedDict()
        self._accuracy = 0.0

    def observe(self, workflow: Hashable, agent: Agent) -> None:
        """Learn the next call of a workflow. Mutates; O(agents after the last one)."""
        before = self._last.get(workflow)
        if before is not None:
            predicted = self._likely(before)
            self._accuracy += _ACCURACY_GAIN * ((predicted == agent) - self._accuracy)
            self._learn(before, agent)
        self._last[workflow] = agent
        self._last.move_to_end(workflow)
        if len(self._last) > _MAX_AGENTS:
            self._last.popitem(last=False)

    def predict(self, num_steps: int) -> Iterator[tuple[int, Agent]]:
        """Yield agents expected within `num_steps` calls, with their steps. Pure.

        Fewest steps first; among equals the most recently called workflow first.
        """
        if self._accuracy < _LIKELY_SHARE:
            return
        now = list(reversed(self._last.values()))
        predicted = set(now[:1])
        for step in range(1, num_steps + 1):
            following = (self._likely(agent) for agent in now)
            now = [agent for agent in following if agent is not None]
            for agent in now:
                if agent not in predicted:
                    predicted.add(agent)
                    yield step, agent

    def _likely(self, agent: Agent) -> Agent | None:
        weights = self._weights.get(agent)
        if not weights:
            return None
        following, weight = weights.most_common(1)[0]
        is_likely = weight >= _LIKELY_SHARE * (weights.total() + _PRIOR_WEIGHT)
        return following if is_likely else None

    def _learn(self, before: Agent, agent: Agent) -> None:
        weights = self._weights.setdefault(before, Counter())
        for other in list(weights):
            weights[other] *= _TRANSITION_MEMORY  # type: ignore[assignment] # weights, not counts
            if weights[other] < 1.0 - _LIKELY_SHARE and other != agent:
                del weights[other]
        weights[agent] += 1
        self._weights.move_to_end(before)
        if len(self._weights) > _MAX_AGENTS:
            self._weights.popitem(last=False)
