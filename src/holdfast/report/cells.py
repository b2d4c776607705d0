"""Figures, gains, loads and cliffs as text, for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.report.comparison import Point
from holdfast.report.curves import Cliff
from holdfast.report.gain import Gain, Interval
from holdfast.report.metrics import Metric

__all__ = [
    "UNKNOWN",
    "format_cliff",
    "format_confidence",
    "format_gain",
    "format_interval",
    "format_load",
    "format_median",
    "format_seeds",
    "format_share",
    "format_times",
]

UNKNOWN: Final = "\u2013"
"""Stands for a value that is not known or not defined."""


def format_load(point: Point) -> str:
    """The load in words."""
    load = point.load
    size = "" if load.kv_tokens is None else f", {load.kv_tokens:,} KV tokens"
    seeds = "" if len(point.seeds) < 2 else f", {len(point.seeds)} seeds"
    window = "" if load.window_s is None else f", a window of {load.window_s:,.0f} s"
    ends = ", session ends known" if load.session_ends == "known" else ""
    fleet = f", {load.fleet}" if load.fleet else ""
    return f"{load.concurrency} sessions at once{fleet}{size}{window}{ends}{seeds}"


def format_median(metric: Metric, interval: Interval | None) -> str:
    """The median alone."""
    return UNKNOWN if interval is None else f"{interval.median:,.{metric.num_decimals}f}"


def format_interval(metric: Metric, interval: Interval | None) -> str:
    """The median, followed by the range where seeds differ."""
    if interval is None:
        return UNKNOWN
    low, high = (f"{end:,.{metric.num_decimals}f}" for end in (interval.low, interval.high))
    median = format_median(metric, interval)
    return median if low == high else f"{median} ({low} to {high})"


def format_times(times: float | None) -> str:
    """A ratio."""
    return UNKNOWN if times is None else f"{times:.2f}x"


def format_gain(gain: Gain | None) -> str:
    """The gain, followed by its confidence interval where there is one."""
    if gain is None:
        return UNKNOWN
    if gain.low is None:
        return format_times(gain.mean)
    return f"{format_times(gain.mean)} ({format_confidence(gain)})"


def format_confidence(gain: Gain | None) -> str:
    """The ends of the confidence interval."""
    if gain is None or gain.low is None or gain.high is None:
        return UNKNOWN
    return f"{gain.low:.2f} to {gain.high:.2f}"


def format_share(share: float | None) -> str:
    """A part of a whole, in percent."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def format_seeds(seeds: Sequence[int]) -> str:
    """Seeds in words."""
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def format_cliff(cliff: Cliff) -> str:
    """The cliff in one sentence."""
    is_sessions = cliff.axis == "concurrency"
    unit, other = ("sessions at once", "KV tokens") if is_sessions else ("KV tokens", "sessions")
    fixed = "" if cliff.fixed is None else f" with {cliff.fixed:,} {other}"
    if cliff.half_lost_at is None:
        half = "more than half of it is left at every load"
    else:
        half = f"at most half of it is left from {cliff.half_lost_at:,}"
    pressure = ""
    if cliff.from_pressure is not None and cliff.to_pressure is not None:
        pressure = (
            f", where live sessions need {cliff.from_pressure:.2f} to {cliff.to_pressure:.2f} "
            "times the KV cache"
        )
    return (
        f"{cliff.policy}{fixed}: the hit ratio falls fastest from {cliff.from_load:,} to"
        f" {cliff.to_load:,} {unit} ({cliff.drop_per_doubling:.2f} a doubling of the load"
        f"{pressure});"
        f" its best is {cliff.best_ratio:.2f}, {half}"
    )
