"""Interpolates values in percentile tables."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from holdfast.workload.generator.parameters import Table

__all__ = ["value_at"]


def value_at(table: Table, percents: tuple[float, ...], share: float) -> float:
    """The value below which a share (0 to 1) of all values lies. Pure.

    Interpolates on an inverse hyperbolic sine scale: logarithmic for large values, and defined for
    0 and negative ones. A straight line from the 99.9th percentile to the maximum would make the
    mean of a long tail many times too large.
    """
    if not isinstance(table, tuple):
        return table
    known_percents, heights = _curve(table, percents)
    return math.sinh(float(np.interp(100.0 * share, known_percents, heights)))


@functools.lru_cache(maxsize=4096)
def _curve(
    table: tuple[float, ...], percents: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.asarray(percents), np.arcsinh(np.asarray(table))
