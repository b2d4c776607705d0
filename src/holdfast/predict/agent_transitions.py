"""Which agent is called after which: learned from the order of calls."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["AgentTransitions"]

_MAX_AGENTS = 1024
_FADING = 0.8
_LIKELY_SHARE = 0.6
_DOUBT = 0.5  # calls that somebody else might have made
_WEIGHT = 0.2

Agent = TypeVar("Agent", bound=Hashable)


class AgentTransitions(Generic[Agent]):
    """First-order transitions between agents, a chain of calls for each workflow.

    Every call is predicted before it is learned. Only while most predictions of late came true is
    anybody said to be next, so that where order means nothing nothing is said. Knows no time.

    Source: transitions learned online as in CacheSage (arXiv 2605.27744), for the steps to
    execution of KVFlow (arXiv 2507.07400). Differs: nothing is declared; predictions earn trust.
    """

    def __init__(self) -> None:
        self._after: OrderedDict[Agent, Counter[Agent]] = OrderedDict()
        self._last: OrderedDict[Hashable, Agent] = OrderedDict()
        self._accuracy = 0.0

    def called(self, workflow: Hashable, agent: Agent) -> None:
        """An agent was called, next in its workflow. Mutates; O(agents that followed the last)."""
        before = self._last.get(workflow)
        if before is not None:
            guess = self._likely(before)
            self._accuracy += _WEIGHT * ((guess == agent) - self._accuracy)
            self._learn(before, agent)
        self._last[workflow] = agent
        self._last.move_to_end(workflow)
        if len(self._last) > _MAX_AGENTS:
            self._last.popitem(last=False)

    def ahead(self, num_steps: int) -> Iterator[tuple[int, Agent]]:
        """Agents that will be called so many steps from now at most, each with its steps. Pure.

        Those one step away first; among equals the workflow first that called last.
        """
        if self._accuracy < _LIKELY_SHARE:
            return
        now = list(reversed(self._last.values()))
        said = set(now[:1])
        for step in range(1, num_steps + 1):
            following = (self._likely(agent) for agent in now)
            now = [agent for agent in following if agent is not None]
            for agent in now:
                if agent not in said:
                    said.add(agent)
                    yield step, agent

    def _likely(self, agent: Agent) -> Agent | None:
        after = self._after.get(agent)
        if not after:
            return None
        found, weight = after.most_common(1)[0]
        return found if weight >= _LIKELY_SHARE * (after.total() + _DOUBT) else None

    def _learn(self, before: Agent, agent: Agent) -> None:
        after = self._after.setdefault(before, Counter())
        for other in list(after):
            after[other] *= _FADING  # type: ignore[assignment] # weights, not counts
            if after[other] < 1.0 - _LIKELY_SHARE and other != agent:
                del after[other]
        after[agent] += 1
        self._after.move_to_end(before)
        if len(self._after) > _MAX_AGENTS:
            self._after.popitem(last=False)
