"""When each agent is called first, as far as transitions tell."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.predict.agent_transitions import (
    END,
    MAX_ORDER,
    Agent,
    AgentTransitions,
    Context,
)

__all__ = ["FirstCall", "first_calls"]

_MAX_CONTEXTS = 96
_LEAST_PROBABILITY = 0.02
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class FirstCall:
    """How soon an agent is called first.

    Attributes:
        within: Probability that it has been called after 1, 2, ... steps.
        steps: Steps for which a kept prefix waits, for each use of it (>= 1).
    """

    within: tuple[float, ...]
    steps: float

    @property
    def probability(self) -> float:
        """Probability that it is called at all, as far ahead as was looked (0 to 1)."""
        return self.within[-1]


def first_calls(
    transitions: AgentTransitions, context: Context, num_steps: int
) -> dict[Agent, FirstCall]:
    """Predict the agents that a workflow calls next. Pure.

    The probability that agent a is called within k steps of context c is the sum, over the agents b
    that may follow, of P(b | c) if b is a, else of P(b | c) times that probability for k - 1 steps
    from c with b: CacheSage's survival (arXiv 2605.27744), exactly instead of by hops. A prefix
    kept for k steps is used P(within k) times and waits sum(1 - P(within j), j < k) steps; `steps`
    is the best ratio of the two, the index of docs/eviction.md counted in steps.

    Nothing follows an end. Transitions of less than 2 % are left out, and contexts beyond the 96
    nearest. What they take is lost, so that probabilities are never too large.
    O(contexts^2 * agents * steps), about a millisecond at most.
    """
    chain = _Chain(transitions, context)
    within = chain.within(num_steps)
    waits = np.cumsum(1.0 - np.vstack([np.zeros_like(within[:1]), within[:-1]]), axis=0)
    with np.errstate(divide="ignore"):
        steps = (waits / within).min(axis=0)
    return {
        agent: FirstCall(tuple(within[:, column].tolist()), float(steps[column]))
        for agent, column in chain.agents.items()
        if within[-1, column] >= _LEAST_PROBABILITY
    }


class _Chain:
    """The contexts that a workflow can reach, nearest first.

    Attributes:
        agents: Agents that it can call, and the column of each.
    """

    def __init__(self, transitions: AgentTransitions, context: Context) -> None:
        self.agents: dict[Agent, int] = {}
        start = transitions.known_suffix(context)
        contexts = {start: 0}
        edges: list[tuple[int, int, float]] = []  # from, agent's column, probability
        leads: list[tuple[int, int, float]] = []  # from, to, probability
        queue = deque(contexts)
        while queue:
            here = queue.popleft()
            for agent, probability in transitions.probabilities(here).items():
                if probability < _LEAST_PROBABILITY or agent == END:
                    continue
                column = self.agents.setdefault(agent, len(self.agents))
                edges.append((contexts[here], column, probability))
                there = transitions.known_suffix((*here, agent)[-MAX_ORDER:])
                if there not in contexts and len(contexts) < _MAX_CONTEXTS:
                    contexts[there] = len(contexts)
                    queue.append(there)
                if there in contexts:
                    leads.append((contexts[here], contexts[there], probability))
        self._last = [self.agents.get(each[-1], -1) for each in contexts]
        self._called = np.zeros((len(contexts), len(self.agents)))
        for row, column, probability in edges:
            self._called[row, column] += probability
        self._moves = np.zeros((len(contexts), len(contexts)))
        for row, to, probability in leads:
            self._moves[row, to] += probability

    def within(self, num_steps: int) -> npt.NDArray[np.float64]:
        """Probability that each agent is called within 1, 2, ... steps of the start."""
        rows = [row for row, last in enumerate(self._last) if last >= 0]
        columns = [last for last in self._last if last >= 0]
        before = np.zeros_like(self._called)
        found = []
        for _ in range(num_steps):
            before[rows, columns] = 0.0  # a move to the agent itself is counted as the call
            before = np.minimum(self._called + self._moves @ before, 1.0)
            found.append(np.round(before[0], _DECIMALS))  # equal on all machines
        return np.array(found).reshape(num_steps, len(self.agents))
