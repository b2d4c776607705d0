"""Counted transitions between agents, as CacheSage publishes them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["TransitionCounts"]

_MAX_AGENTS = 1024

Agent = TypeVar("Agent")


class TransitionCounts(Generic[Agent]):
    """How often each agent followed each other one, and what comes next.

    P(b | a) = (C_ab + e) / sum over all agents k of (C_ak + e). Nothing fades. `AgentTransitions`
    is what Holdfast itself uses.

    Source: CacheSage/CacheScout, arXiv 2605.27744 and 2608.14624. Differs: edges are transitions
    that were seen; agents beyond the 1,024 most recently called are forgotten.

    Args:
        smoothing: Added to each count, e (>= 0).
    """

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._rows: OrderedDict[Agent, dict[Agent, float]] = OrderedDict()

    def __len__(self) -> int:
        """Agents (count)."""
        return len(self._rows)

    def enter(self, agent: Agent) -> None:
        """Take note of an agent. Mutates."""
        self._rows[agent] = self._rows.pop(agent, {})
        if len(self._rows) > _MAX_AGENTS:
            gone, _ = self._rows.popitem(last=False)
            for row in self._rows.values():
                row.pop(gone, None)

    def observe(self, before: Agent, agent: Agent) -> None:
        """Count a transition. Mutates."""
        self.enter(agent)
        row = self._rows.setdefault(before, {})
        row[agent] = row.get(agent, 0.0) + 1.0

    def probability(self, before: Agent, agent: Agent) -> float:
        """P(agent | before), 0 if neither is known. Pure; O(agents after `before`)."""
        row = self._rows.get(before, {})
        total = sum(row.values()) + self._smoothing * len(self._rows)
        return (row.get(agent, 0.0) + self._smoothing) / total if total else 0.0

    def likeliest_after(self, before: Agent) -> Agent | None:
        """The agent that followed most often, the first of equals; None if none did. Pure."""
        row = self._rows.get(before)
        return max(row, key=row.__getitem__) if row else None

    @property
    def predictability(self) -> float:
        """1 - H(next | current) / H(next), by the counts (0 to 1). Pure; O(transitions).

        0 where only one agent ever came next.
        """
        total = sum(sum(row.values()) for row in self._rows.values())
        columns: dict[Agent, float] = {}
        conditional = 0.0
        for row in self._rows.values():
            conditional += _entropy(row.values()) * sum(row.values())
            for agent, count in row.items():
                columns[agent] = columns.get(agent, 0.0) + count
        marginal = _entropy(columns.values())
        return 1.0 - conditional / total / marginal if marginal else 0.0

    def hops(self, current: Iterable[Agent], min_edge: float) -> dict[Agent, int]:
        """Least hops to each agent from any current one, breadth first. Pure.

        Args:
            current: Agents that run now.
            min_edge: Least probability of a transition that is an edge, tau.
        """
        hops = dict.fromkeys(current, 0)
        frontier = list(hops)
        while frontier:
            following = []
            for agent in frontier:
                for other in self._rows.get(agent, ()):
                    if other not in hops and self.probability(agent, other) >= min_edge:
                        hops[other] = hops[agent] + 1
                        following.append(other)
            frontier = following
        return hops

    def survival(self, current: Agent, num_steps: int) -> dict[Agent, float]:
        """Probability that each agent is called within so many steps. Pure.

        Exact for the counts without smoothing: Pr(exists k <= K: A(t + k) = a), the sum over b of
        P(b | current) if b is a, else P(b | current) times that probability for K - 1 steps from b.
        O(steps * transitions * agents).
        """
        within: dict[Agent, dict[Agent, float]] = {agent: {} for agent in self._rows}
        for _ in range(num_steps):
            within = {agent: self._one_step_more(row, within) for agent, row in self._rows.items()}
        return within.get(current, {})

    @staticmethod
    def _one_step_more(
        row: dict[Agent, float], within: dict[Agent, dict[Agent, float]]
    ) -> dict[Agent, float]:
        total = sum(row.values())
        found: dict[Agent, float] = {}
        for other, count in row.items():
            share = count / total
            found[other] = found.get(other, 0.0) + share
            for agent, probability in within.get(other, {}).items():
                if agent != other:
                    found[agent] = found.get(agent, 0.0) + share * probability
        return found


def _entropy(counts: Iterable[float]) -> float:
    """Entropy of a distribution with these weights (bits). Pure."""
    weights = [count for count in counts if count > 0.0]
    total = sum(weights)
    return -sum(w / total * math.log2(w / total) for w in weights)
