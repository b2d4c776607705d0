"""Random draws for one session, independent or correlated."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from holdfast.workload.generator.parameters import Dependence, Table
from holdfast.workload.generator.table import value_at
from holdfast.workload.study.profile import QUANTITIES, TRAITS

__all__ = ["Draws"]

_NORMAL = NormalDist()
_NUM = len(QUANTITIES)
_LEAST_VARIANCE = 1e-6
_Name = TypeVar("_Name", bound=str)

Matrix = NDArray[np.float64]


class Draws:
    """Draws values from percentile tables, all from one stream of random numbers.

    A session copies the levels and ranks of one of `Dependence.sessions`, with a uniform draw
    within each rank (an empirical copula). The quantities of a turn come from a Gaussian copula:
    correlated normal scores select values in a table by their rank. A turn's score is its session's
    level plus a first-order autoregressive part.

    Args:
        rng: Mutated by every draw.
        percents: The percentile of each table entry.
        dependence: None draws all values independently.

    Attributes:
        ends_full: Whether the session ends with its context full.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        percents: tuple[float, ...],
        dependence: Dependence | None,
    ) -> None:
        self._rng = rng
        self._percents = percents
        self._turn_root = np.eye(_NUM)
        self._next = self._levels = np.zeros(_NUM)
        self._ranks = rng.random(len(TRAITS))
        self.ends_full = False
        if dependence is not None:
            session = dependence.sessions[int(rng.integers(len(dependence.sessions)))]
            ranks = np.array([getattr(session, name) for name in TRAITS])
            self._ranks = (ranks + self._ranks) / len(dependence.sessions)
            self._levels = np.array([getattr(session, name) for name in QUANTITIES])
            self.ends_full = session.ends_full
            self._turn_root = _root(dependence)
            # Below 1; at 1 a turn would only repeat the last one's scores.
            self._next = np.clip(dependence.next_correlations, 0.0, 0.99)
        self._within = self._turn_root @ rng.standard_normal(_NUM)
        self._scores = self._levels

    def trait(self, name: str, table: Table) -> float:
        """The session's value of one of `TRAITS`, from `table`; constant over its turns."""
        return value_at(table, self._percents, float(self._ranks[TRAITS.index(name)]))

    def next_turn(self) -> None:
        """Draw the scores of the next turn. Mutates."""
        innovation = self._turn_root @ self._rng.standard_normal(_NUM)
        self._within = self._next * self._within + np.sqrt(1 - self._next**2) * innovation
        self._scores = self._levels + self._within

    def quantity(self, name: str, table: Table) -> float:
        """This turn's value of one of `QUANTITIES`, from `table`."""
        score = float(self._scores[QUANTITIES.index(name)])
        return value_at(table, self._percents, _NORMAL.cdf(score))

    def value(self, table: Table) -> float:
        """A value from `table`, independent of all others."""
        return value_at(table, self._percents, self._rng.random())

    def share(self) -> float:
        """A number from 0 to below 1."""
        return float(self._rng.random())

    def happens(self, chance: float) -> bool:
        """Whether an event of this chance (0 to 1) happens."""
        return bool(self._rng.random() < chance)

    def choice(self, weights: Mapping[_Name, float]) -> _Name:
        """Draw one of the names by weight (>= 0, not all 0)."""
        remaining = self._rng.random() * sum(weights.values())
        for name, weight in weights.items():
            remaining -= weight
            if remaining < 0:
                return name
        return next(name for name in reversed(list(weights)) if weights[name] > 0)


def _root(dependence: Dependence) -> Matrix:
    """The matrix that gives independent normal numbers the covariance of a turn.

    Measured correlations may come from different turns and contradict each other; they are weakened
    until they are consistent.
    """
    spread = np.sqrt(np.maximum(1.0 - np.asarray(dependence.session_shares), _LEAST_VARIANCE))
    correlations = np.asarray(dependence.turn_correlations)
    for strength in np.linspace(1.0, 0.0, 21):
        try:
            weakened = strength * correlations + (1.0 - strength) * np.eye(_NUM)
            root: Matrix = spread[:, np.newaxis] * np.linalg.cholesky(weakened)
            return root
        except np.linalg.LinAlgError:
            continue
    raise AssertionError("a diagonal matrix of positive numbers has a root")
