"""A distribution as the study reports it: a table of percentiles to read, plot or draw from."""

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
"""The percentile that each entry of a table stands for; denser in the tails."""

Sample = Sequence[float] | NDArray[Any]
"""Values of one kind: lists and arrays alike."""


class Distribution(msgspec.Struct, frozen=True):
    """Values of one kind, in the unit that its name states.

    Attributes:
        num_values: How many there were.
        mean: None where there were none.
        percentiles: One for each of `PERCENTS`, ascending; empty where there were no values.
    """

    num_values: int
    mean: float | None
    percentiles: tuple[float, ...]

    def at(self, percent: float) -> float:
        """The value at `percent` (0 to 100), between two entries on the line through both. Pure.

        Raises:
            ValueError: There were no values.
        """
        if not self.percentiles:
            raise ValueError("a distribution without values has no percentiles")
        return float(np.interp(percent, PERCENTS, self.percentiles))

    @property
    def median(self) -> float | None:
        """The middle value; None where there were none."""
        return self.at(50.0) if self.percentiles else None


def distribution_of(values: Sample, weights: Sample | None = None) -> Distribution:
    """Summarise values, each counted once or by its weight (>= 0, not all 0); pure.

    Without weights percentiles lie on the line between neighbouring values, as numpy has it. With
    weights each is the smallest value with at least that share of the weight at or below it.
    """
    known = np.asarray(values, dtype=np.float64)
    if known.size == 0:
        return Distribution(0, None, ())
    if weights is None:
        table = np.percentile(known, PERCENTS)
        return Distribution(known.size, float(known.mean()), tuple(table.tolist()))
    order = np.argsort(known, kind="stable")
    heaped = np.cumsum(np.asarray(weights, dtype=np.float64)[order])
    places = np.searchsorted(heaped, np.asarray(PERCENTS) / 100 * heaped[-1])
    table = known[order][np.minimum(places, known.size - 1)]
    mean = float(np.average(known, weights=np.asarray(weights, dtype=np.float64)))
    return Distribution(known.size, mean, tuple(table.tolist()))
