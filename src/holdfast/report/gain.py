"""One side of runs against another: values over seeds, and gains paired by seed.

Equal seeds mean equal sessions in the same order, so a gain compares runs of the same seed: the
spread between seeds then says nothing about the policies. The interval of a gain is Student's t on
the logarithms of the ratios; without scipy there is none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.core.results import RunResult, ratio
from holdfast.report.metrics import Metric

__all__ = ["CONFIDENCE", "Gain", "Interval", "paired_gain", "paired_ratio", "spread"]

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Median of the seeds' values, and the lowest and highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Gain:
    """Ratio to a baseline; above 1 is better, below 1 is a loss.

    Attributes:
        mean: Geometric mean over the seeds with a ratio; 0 when one of them is 0.
        low: Lower end of the confidence interval; None with fewer than two ratios, or one of 0.
        high: Upper end, None as `low`.
        by_seed: The ratio of every seed for which both sides know the metric; None where its
            denominator is 0.
    """

    mean: float
    low: float | None
    high: float | None
    by_seed: tuple[tuple[int, float | None], ...]


def spread(values: Iterable[float | None]) -> Interval | None:
    """Median, lowest and highest of the known values; None without any; pure."""
    known = [value for value in values if value is not None]
    return Interval(statistics.median(known), min(known), max(known)) if known else None


def paired_gain(
    metric: Metric, baseline: Mapping[int, RunResult], subject: Mapping[int, RunResult]
) -> Gain | None:
    """Gain of the subject; None without a ratio or a better direction; pure.

    Args:
        metric: The figure to compare.
        baseline: Runs by seed.
        subject: Runs by seed; seeds of only one side are left out.
    """
    if metric.better == "neither":
        return None
    if metric.better == "higher":
        return paired_ratio(metric, subject, baseline)
    return paired_ratio(metric, baseline, subject)


def paired_ratio(
    metric: Metric, numerator: Mapping[int, RunResult], denominator: Mapping[int, RunResult]
) -> Gain | None:
    """Ratio of one side's figures to the other's, by seed; None without any; pure."""
    by_seed: list[tuple[int, float | None]] = []
    for seed in sorted(numerator.keys() & denominator.keys()):
        above, below = metric.value(numerator[seed]), metric.value(denominator[seed])
        if above is not None and below is not None:
            by_seed.append((seed, ratio(above, below)))
    ratios = [value for _, value in by_seed if value is not None]
    if not ratios:
        return None
    if min(ratios) <= 0:
        return Gain(0.0, None, None, tuple(by_seed))
    low, high = _log_interval(ratios)
    return Gain(statistics.geometric_mean(ratios), low, high, tuple(by_seed))


def _log_interval(ratios: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    if len(ratios) < 2:
        return None, None
    try:
        from scipy.special import stdtrit
    except ImportError:  # a gain without an interval is still a result
        return None, None
    logs = [math.log(value) for value in ratios]
    centre = statistics.fmean(logs)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * error
    return math.exp(centre - half), math.exp(centre + half)
