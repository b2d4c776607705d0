"""Metrics over the number of sessions or the cache size, and their cliffs.

Knows nothing about how they are shown. A curve follows one of the two and holds the other fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import BASELINE
from holdfast.report.comparison import policy_order
from holdfast.report.gain import Interval, spread
from holdfast.report.metrics import HIT_RATIO, PRESSURE, Metric

__all__ = ["AXES", "Axis", "Cliff", "Curve", "Panel", "cliff", "cliffs", "curves"]

Axis = Literal["concurrency", "kv_tokens"]

AXES: Final[tuple[Axis, ...]] = ("concurrency", "kv_tokens")

_LEAST_CLIFF_LOADS: Final = 3


@dataclass(frozen=True, slots=True)
class Curve:
    """One policy's known values, as `(load, interval over seeds)`, by ascending load.

    The load is in the unit of the panel's axis: sessions at once, or tokens.
    """

    policy: str
    points: tuple[tuple[int, Interval], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of one plot.

    Attributes:
        metric: The metric.
        axis: The quantity that changes along the curves.
        fixed: The value of the other axis; None where the size of the cache is not known.
        curves: In `policy_order`.
    """

    metric: Metric
    axis: Axis
    fixed: int | None
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Cliff:
    """The loads between which a policy's hit ratio falls fastest.

    More sessions and a smaller cache are both a heavier load: along a `kv_tokens` axis the load
    grows toward small values, and `from_load` is larger than `to_load`.

    Attributes:
        fixed: The value of the other axis; None where the size of the cache is not known.
        from_load: The lighter end of the steepest piece, in the unit of the axis.
        to_load: The heavier end.
        drop_per_doubling: Hit ratio lost there each time the load doubles.
        best_ratio: Highest hit ratio, median over seeds.
        half_lost_at: First load beyond that of the best ratio at which at most half of it is left;
            None when no measured load is that heavy.
        from_pressure: Working set relative to the KV cache at `from_load`; None where unknown.
        to_pressure: The same at `to_load`.
    """

    policy: str
    axis: Axis
    fixed: int | None
    from_load: int
    to_load: int
    drop_per_doubling: float
    best_ratio: float
    half_lost_at: int | None
    from_pressure: float | None = None
    to_pressure: float | None = None


def curves(
    runs: Iterable[RunResult], metric: Metric, axis: Axis, *, baseline: str = BASELINE
) -> tuple[Panel, ...]:
    """The panels of a metric over an axis, by ascending fixed value; pure.

    A fixed value at which the axis has fewer than two values has no panel. Of runs with equal
    policy, seed and point the last counts.
    """
    cells: dict[int | None, dict[int, dict[str, dict[int, RunResult]]]] = {}
    for run in runs:
        load, fixed = _load(run, axis)
        if load:
            at_load = cells.setdefault(fixed, {}).setdefault(load, {})
            at_load.setdefault(run.policy, {})[run.seed] = run
    panels = []
    for fixed in sorted(cells, key=lambda value: value or 0):
        at_fixed = cells[fixed]
        if len(at_fixed) < 2:
            continue
        names = {policy for by_policy in at_fixed.values() for policy in by_policy}
        lines = tuple(_curve(policy, at_fixed, metric) for policy in policy_order(names, baseline))
        panels.append(Panel(metric, axis, fixed, lines))
    return tuple(panels)


def cliffs(runs: Iterable[RunResult], policy: str) -> tuple[Cliff, ...]:
    """The cliffs of a policy over either axis, at most one for each fixed value; pure."""
    own = [run for run in runs if run.policy == policy]
    found = []
    for axis in AXES:
        pressures = {panel.fixed: panel.curves[0] for panel in curves(own, PRESSURE, axis)}
        for panel in curves(own, HIT_RATIO, axis):
            one = cliff(panel.curves[0], panel.axis, panel.fixed)
            if one is not None:
                at_load = {load: each.median for load, each in pressures[panel.fixed].points}
                found.append(
                    replace(
                        one,
                        from_pressure=at_load.get(one.from_load),
                        to_pressure=at_load.get(one.to_load),
                    )
                )
    return tuple(found)


def cliff(hit_ratios: Curve, axis: Axis, fixed: int | None) -> Cliff | None:
    """Locate the cliff of a curve of hit ratios; pure.

    Steepness is per doubling of the load: the spacing of the measured loads does not matter, and
    sessions and tokens are comparable.

    Returns:
        None with fewer than three loads, or when the hit ratio never falls.
    """
    medians = [(load, interval.median) for load, interval in hit_ratios.points]
    if len(medians) < _LEAST_CLIFF_LOADS:
        return None
    if axis == "kv_tokens":
        medians.reverse()
    drop, start, end = max(_drops(medians), key=lambda piece: piece[0])
    if drop <= 0:
        return None
    best = max(value for _, value in medians)
    peak = next(index for index, (_, value) in enumerate(medians) if value == best)
    return Cliff(
        policy=hit_ratios.policy,
        axis=axis,
        fixed=fixed,
        from_load=start,
        to_load=end,
        drop_per_doubling=drop,
        best_ratio=best,
        half_lost_at=next((load for load, value in medians[peak:] if value <= best / 2), None),
    )


def _load(run: RunResult, axis: Axis) -> tuple[int | None, int | None]:
    """The run's load on the axis, and its load on the other axis."""
    if axis == "concurrency":
        return run.concurrency, run.kv_tokens
    return run.kv_tokens, run.concurrency


def _curve(
    policy: str, at_fixed: dict[int, dict[str, dict[int, RunResult]]], metric: Metric
) -> Curve:
    points = []
    for load in sorted(at_fixed):
        runs = at_fixed[load].get(policy, {}).values()
        interval = spread(metric.value(run) for run in runs)
        if interval is not None:
            points.append((load, interval))
    return Curve(policy, tuple(points))


def _drops(medians: Sequence[tuple[int, float]]) -> Iterable[tuple[float, int, int]]:
    """Loss per doubling of the load between neighbours, with both loads."""
    for (lighter, before), (heavier, after) in pairwise(medians):
        yield (before - after) / abs(math.log2(heavier / lighter)), lighter, heavier
