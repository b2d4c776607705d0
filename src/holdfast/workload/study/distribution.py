"""Distributions as tables of percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTS", "Distribution", "Sample", "distribution_of"]

PERCENTS: Final = (
    *(0.0, 1.0, 2.5, *(float(percent) for percent in range(5, 100, 5))),
    *(97.5, 99.0, 99.9, 100.0),
)
"""The percentile of each table entry; denser in the tails."""

Sample = Sequence[float] | NDArray[Any]
"""Values of one kind, as a sequence or an array."""


class Distribution(msgspec.Struct, frozen=True):
    """Distribution of values of one kind, in the unit of its field's name.

    Attributes:
        num_values: Number of values.
        mean: None without values.
        percentiles: One for each of `PERCENTS`, ascending; empty without values.
    """

    num_values: int
    mean: float | None
    percentiles: tuple[float, ...]

    def at(self, percent: float) -> float:
        """The value at `percent` (0 to 100), interpolated linearly. Pure.

        Raises:
            ValueError: There were no values.
        """
        if not self.percentiles:
            raise ValueError("a distribution without values has no percentiles")
        return float(np.interp(percent, PERCENTS, self.percentiles))

    @property
    def median(self) -> float | None:
        """The median; None without values."""
        return self.at(50.0) if self.percentiles else None


def distribution_of(values: Sample, weights: Sample | None = None) -> Distribution:
    """Summarise values with equal or given weights (>= 0, not all 0); pure.

    Without weights percentiles are interpolated as in numpy. With weights a percentile is the
    smallest value with at least that share of the weight at or below it.
    """
    known = np.asarray(values, dtype=np.float64)
    if known.size == 0:
        return Distribution(0, None, ())
    if weights is None:
        table = np.percentile(known, PERCENTS)
        return Distribution(known.size, float(known.mean()), tuple(table.tolist()))
    order = np.argsort(known, kind="stable")
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    indices = np.searchsorted(cumulative, np.asarray(PERCENTS) / 100 * cumulative[-1])
    table = known[order][np.minimum(indices, known.size - 1)]
    mean = float(np.average(known, weights=np.asarray(weights, dtype=np.float64)))
    return Distribution(known.size, mean, tuple(table.tolist()))
