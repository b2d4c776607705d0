"""A distribution of gaps on a logarithmic grid, with queries in constant time.

The grid spans 80 octaves from a nanosecond up, in quarter octaves. It only bounds what can be
represented: all bins are treated alike, so that no time scale is preferred.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "BINS_PER_OCTAVE", "Floats", "GapCurve", "bin_of", "heavy_tail", "shifted"]

Floats = npt.NDArray[np.float64]

BINS_PER_OCTAVE = 4
_LOWEST_OCTAVE = -30
_OCTAVES = 80
BINS = _OCTAVES * BINS_PER_OCTAVE
TAIL_INDEX = 0.8

_EDGE_OCTAVES = np.arange(BINS + 1) / BINS_PER_OCTAVE + _LOWEST_OCTAVE
_EDGE_ARRAY: Floats = np.exp2(_EDGE_OCTAVES)
_EDGES: list[float] = _EDGE_ARRAY.tolist()
_WIDTHS: Floats = np.diff(_EDGE_ARRAY)
_TOP_S = _EDGES[-1]


def bin_of(gap_s: float) -> int:
    """Return the bin of a gap in seconds, clipped to the grid. Pure."""
    if gap_s <= _EDGES[0]:
        return 0
    if gap_s >= _TOP_S:
        return BINS - 1
    # The logarithm rounds; an edge belongs to the bin above it.
    index = int((math.log2(gap_s) - _LOWEST_OCTAVE) * BINS_PER_OCTAVE)
    if gap_s < _EDGES[index]:
        return index - 1
    return index + 1 if index + 1 < BINS and gap_s >= _EDGES[index + 1] else index


def heavy_tail(median_bin: float) -> Floats:
    """Return the masses of the prior, a log-logistic distribution. Pure.

    Its tails fall like a power on both sides, as those of tool and of human gaps do; only its
    location, `median_bin` (a bin's index, fractions allowed), has to be learned.
    """
    octaves = (np.arange(1, BINS) - median_bin - 0.5) / BINS_PER_OCTAVE
    below = np.concatenate(([0.0], 1.0 / (1.0 + np.exp2(-TAIL_INDEX * octaves)), [1.0]))
    masses: Floats = np.diff(below)
    return masses


def shifted(masses: Floats, bins: int) -> Floats:
    """Return `masses` moved up by `bins`, clipped to the grid. Pure."""
    if bins == 0:
        return masses
    moved: Floats = np.zeros(BINS)
    if bins > 0:
        moved[bins:] = masses[:-bins]
        moved[-1] += masses[-bins:].sum()
    else:
        moved[:bins] = masses[-bins:]
        moved[0] += masses[:-bins].sum()
    return moved


class GapCurve:
    """Survival function of a gap, given that it ends, and its integral. Immutable.

    Inside a bin the density is uniform in time. Residual quantities are measured from `elapsed_s`
    on, given no return before that.
    """

    __slots__ = ("_integral", "_negated", "_survival")

    def __init__(self, masses: Floats) -> None:
        survival = np.zeros(BINS + 1)
        survival[:-1] = np.cumsum(masses[::-1])[::-1]
        survival /= survival[0]
        integral = np.zeros(BINS + 1)
        areas = (survival[:-1] + survival[1:]) / 2 * _WIDTHS
        integral[:-1] = np.cumsum(areas[::-1])[::-1]
        self._survival: list[float] = survival.tolist()
        self._negated: list[float] = (-survival).tolist()
        self._integral: list[float] = integral.tolist()

    def survival(self, time_s: float) -> float:
        """Return the probability that the gap is longer than `time_s`."""
        if time_s <= _EDGES[0]:
            return 1.0
        if time_s >= _TOP_S:
            return 0.0
        index = bin_of(time_s)
        low, high = _EDGES[index], _EDGES[index + 1]
        above = self._survival[index + 1]
        return above + (self._survival[index] - above) * (high - time_s) / (high - low)

    def rank(self, gap_s: float) -> float:
        """Return the share of gaps longer than `gap_s`, half of those in its bin included."""
        index = bin_of(gap_s)
        return (self._survival[index] + self._survival[index + 1]) / 2

    def time_at(self, survival: float) -> float:
        """Return the seconds that a gap outlasts with probability `survival` (0 to 1)."""
        if survival >= 1.0:
            return 0.0
        index = bisect_left(self._negated, -survival)
        if index > BINS:
            return _TOP_S
        above, at = self._survival[index - 1], self._survival[index]
        low, high = _EDGES[index - 1], _EDGES[index]
        return low + (high - low) * (above - survival) / (above - at)

    def mean_residual_s(self, elapsed_s: float, limit_s: float) -> float:
        """Return the mean of min(gap - elapsed, `limit_s`)."""
        survival, area = self._at(elapsed_s)
        if survival <= 0.0:
            return limit_s
        # A difference of two nearly equal integrals may round to less than zero.
        return min(limit_s, max(0.0, (area - self._at(elapsed_s + limit_s)[1]) / survival))

    def trimmed_residual_s(self, elapsed_s: float, quantile: float) -> float:
        """Return the mean of the residual time, cut at its own `quantile`."""
        survival, area = self._at(elapsed_s)
        if survival <= 0.0:
            return elapsed_s
        limit_s = self.time_at(survival * (1.0 - quantile))
        return max(0.0, (area - self._at(limit_s)[1]) / survival)

    def _at(self, time_s: float) -> tuple[float, float]:
        """Return the survival at `time_s`, and its integral from there on."""
        if time_s <= _EDGES[0]:
            return 1.0, self._integral[0] + _EDGES[0] - time_s
        if time_s >= _TOP_S:
            return 0.0, 0.0
        index = bin_of(time_s)
        low, high = _EDGES[index], _EDGES[index + 1]
        above = self._survival[index + 1]
        here = above + (self._survival[index] - above) * (high - time_s) / (high - low)
        return here, self._integral[index + 1] + (here + above) / 2 * (high - time_s)
