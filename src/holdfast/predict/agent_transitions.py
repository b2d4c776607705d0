"""Transitions between agents, learned from the order of their calls."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["END", "MAX_ORDER", "Agent", "AgentTransitions", "Context", "TransitionRow"]

Agent = int
"""A number that stands for an agent; see `predict.agent_calls`."""

END: Agent = 0
"""Stands for the end of a workflow, which follows its last agent."""

Context = tuple[Agent, ...]
"""The last agents of a workflow, oldest first, at most two."""

MAX_ORDER = 2
_MEMORY = 0.9  # weight that an observation keeps with each later one of its row
_LEAST_WEIGHT = 0.02
_NEW_AGENT_WEIGHT = 0.5
_MAX_ESCAPE = 1.0
_MAX_ROWS = 2048
_MAX_FOLLOWING = 16
_MAX_AGENTS = 1024
_LOSS_GAIN = 0.02
_LEAST_LOSS_BITS = 0.2


@dataclass(slots=True)
class TransitionRow:
    """What followed one context, recent observations weighing most.

    Attributes:
        weights: By agent that followed.
        loss_bits: Mean code length of what followed, as predicted with this row (bits).
        num_scored: Predictions that `loss_bits` is the mean of (count).
    """

    weights: dict[Agent, float] = field(default_factory=dict)
    loss_bits: float = 0.0
    num_scored: int = 0

    def learn(self, agent: Agent, memory: float) -> None:
        """Learn what followed. Mutates; O(agents of the row)."""
        weights = self.weights
        for other in list(weights):
            weights[other] *= memory
            if weights[other] < _LEAST_WEIGHT:
                del weights[other]
        weights[agent] = weights.get(agent, 0.0) + 1.0
        if len(weights) > _MAX_FOLLOWING:
            del weights[min(weights, key=lambda other: (weights[other], other != agent))]

    def score(self, loss_bits: float) -> None:
        """Learn how long the code of an observation was (bits). Mutates."""
        self.num_scored += 1
        gain = max(_LOSS_GAIN, 1.0 / self.num_scored)
        self.loss_bits += gain * (loss_bits - self.loss_bits)


class AgentTransitions:
    """Which agent is called after which, by the last one or two.

    A row of a longer context exists where the shorter one has been followed by several agents. A
    row's probabilities are blended with those of the next shorter context, by as much as the row is
    new. Each call is predicted before it is learned, so that the loss tells how
    good predictions are. Knows no time.

    Source: blending of orders as in PPM, method C (Moffat, IEEE Trans. Comm. 38(11), 1990);
    predictability R = 1 - H(next | current) / H(next) of CacheSage (arXiv 2605.27744).
    Differs: both entropies are code lengths of predictions made before the call, since entropies of
    the counts are too small while counts are few; old observations fade.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[Context, TransitionRow] = OrderedDict()
        self._agents: OrderedDict[Agent, float] = OrderedDict()  # weight among all calls
        self._total = 0.0
        self._num_new = self._expected_new = 1.0  # followers that were new in their rows
        self._alone = TransitionRow()  # the loss without a context
        self._blended = TransitionRow()  # the loss with it

    def __len__(self) -> int:
        """Rows (count)."""
        return len(self._rows)

    @property
    def predictability(self) -> float:
        """Share of the next agent's entropy that the context takes away (<= 1).

        0 while there is nothing to predict; negative where contexts mislead.
        """
        alone_bits = self._alone.loss_bits
        if alone_bits < _LEAST_LOSS_BITS:
            return 0.0
        return 1.0 - self._blended.loss_bits / alone_bits

    @property
    def evidence_bits(self) -> float:
        """By how much contexts have shortened the code of what followed (bits). Pure.

        Without an order it exceeds b bits with a probability of at most 2 ** -b, as the likelihood
        ratio of the two codes is a martingale (Ville 1939). Only the last observations count.
        """
        num_scored = min(self._alone.num_scored, 1.0 / _LOSS_GAIN)
        return (self._alone.loss_bits - self._blended.loss_bits) * num_scored

    def is_known(self, context: Context) -> bool:
        """Whether anything has followed the context's last agent. Pure."""
        return context[-1:] in self._rows

    def end_probability(self, context: Context) -> float:
        """Probability that nothing follows a context, as the workflow ends (0 to 1). Pure."""
        return self._probability(context, END)

    def observe(self, context: Context, agent: Agent) -> Context:
        """Learn which agent, or `END`, followed a context. Mutates; O(agents of its rows).

        Returns:
            The workflow's next context.
        """
        if agent in self._agents:
            self._score(context, agent)
        for order in range(1, len(context) + 1):
            suffix = context[-order:]
            row = self._rows.get(suffix)
            is_new = row is None
            if row is not None:
                self._learn_escape(row, agent)
            if row is None:
                row = self._rows[suffix] = TransitionRow()
            row.learn(agent, _MEMORY)
            self._rows.move_to_end(suffix)
            if is_new or len(row.weights) == 1:
                break  # a longer context could tell no more
        while len(self._rows) > _MAX_ROWS:
            self._rows.popitem(last=False)
        self._count(agent)
        return (*context, agent)[-MAX_ORDER:]

    def probabilities(self, context: Context) -> dict[Agent, float]:
        """Probability of each agent that has followed the context or a suffix of it. Pure.

        The rest up to 1 is that of all other agents.
        """
        found: dict[Agent, float] = {}
        for order in range(1, len(context) + 1):
            row = self._rows.get(context[-order:])
            if row is None:
                break
            total = sum(row.weights.values())
            escape = self._escape * len(row.weights)
            shorter = escape / (total + escape)
            for other in found:
                found[other] *= shorter
            for other, weight in row.weights.items():
                if order == 1:
                    base = self._share(other) * shorter
                    found[other] = base + weight / (total + escape)
                else:
                    found[other] = found.get(other, 0.0) + weight / (total + escape)
        return found

    def known_suffix(self, context: Context) -> Context:
        """The longest suffix that has a row; at least the last agent. Pure."""
        order = 1
        while order < len(context) and context[-order - 1 :] in self._rows:
            order += 1
        return context[-order:]

    def rows(self) -> Iterator[tuple[Context, TransitionRow]]:
        """Contexts and their rows, the least recently observed first."""
        return iter(self._rows.items())

    def shares(self) -> Iterator[tuple[Agent, float]]:
        """Agents and their weights among all calls, the least recently called first."""
        return iter(self._agents.items())

    @property
    def losses(self) -> tuple[TransitionRow, TransitionRow]:
        """The losses without and with a context; for `restore`."""
        return self._alone, self._blended

    @property
    def new_followers(self) -> tuple[float, float]:
        """Followers new in their rows, and as many expected (counts)."""
        return self._num_new, self._expected_new

    def restore(
        self,
        rows: Iterable[tuple[Context, dict[Agent, float]]],
        agents: Iterable[tuple[Agent, float]],
        losses: tuple[TransitionRow, TransitionRow],
        new_followers: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Take over what another model had learned. Mutates."""
        self._num_new, self._expected_new = new_followers
        self._rows = OrderedDict((context, TransitionRow(weights)) for context, weights in rows)
        self._agents = OrderedDict(agents)
        self._total = sum(self._agents.values())
        self._alone, self._blended = losses

    @property
    def _escape(self) -> float:
        """Weight of agents that have not followed a context, for each one that has."""
        return min(0.5 * self._num_new / self._expected_new, _MAX_ESCAPE)

    def _learn_escape(self, row: TransitionRow, agent: Agent) -> None:
        """Learn whether rows are followed by new agents as often as expected. Mutates."""
        escape = 0.5 * len(row.weights)
        self._expected_new += escape / (sum(row.weights.values()) + escape)
        self._num_new += agent not in row.weights

    def _share(self, agent: Agent) -> float:
        """Probability of an agent without a context; half a call is kept for new ones."""
        return (self._agents.get(agent, 0.0) + _NEW_AGENT_WEIGHT) / (
            self._total + _NEW_AGENT_WEIGHT * (len(self._agents) + 1)
        )

    def _score(self, context: Context, agent: Agent) -> None:
        alone = self._share(agent)
        self._alone.score(-math.log2(alone))
        self._blended.score(-math.log2(self._probability(context, agent)))

    def _probability(self, context: Context, agent: Agent) -> float:
        """Probability of one agent, which need not have followed the context. Pure."""
        share = self._share(agent)
        for order in range(1, len(context) + 1):
            row = self._rows.get(context[-order:])
            if row is None:
                break
            total = sum(row.weights.values())
            escape = self._escape * len(row.weights)
            share = (row.weights.get(agent, 0.0) + escape * share) / (total + escape)
        return share

    def _count(self, agent: Agent) -> None:
        self._agents[agent] = self._agents.pop(agent, 0.0) + 1.0
        self._total += 1.0
        if len(self._agents) > _MAX_AGENTS:
            self._total -= self._agents.popitem(last=False)[1]
        if self._total > 8.0 * _MAX_AGENTS:
            self._agents = OrderedDict((a, w / 2.0) for a, w in self._agents.items())
            self._total /= 2.0
