"""How many sessions fit an engine, estimated or searched for with simulated runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np

from holdfast.core.capacity import Span
from holdfast.sim.hit_estimate import CacheSize, estimate_hits
from holdfast.sim.profile import CostProfile
from holdfast.sim.turn_mix import TurnMix

__all__ = [
    *("FITS_SHARE", "HALF_SHARE", "MOST_SESSIONS", "MOST_TURNS"),
    *("crossing", "estimate_crossing", "estimated_curve", "search", "span_of"),
]

FITS_SHARE: Final = 0.95
"""Share of an infinite cache's hits that sessions keep which fit."""
HALF_SHARE: Final = 0.5
"""The share at the cliff."""

MOST_TURNS: Final = 600
"""Turns that an estimate goes by."""
_NUM_SAMPLES: Final = 8
MOST_SESSIONS: Final = 4096
"""Sessions at once at which an estimate ends its search."""
_PRECISION: Final = 0.015
_FAR: Final = 2.0
_FAR_STEP: Final = 2.0
_NEAR_STEP: Final = 1.1
_STEP: Final = 1.25
_CLOSE: Final = 1.12
_CURVE_POINTS: Final = 24


def estimate_crossing(
    mix: TurnMix, profile: CostProfile, size: CacheSize, share: float
) -> Span | None:
    """Sessions at which hits fall to a share of an infinite cache's. Pure.

    The range is that of the traces: other sessions of the same kind could have been recorded.
    It does not contain the estimate's own error.

    Args:
        mix: The turns.
        profile: What the engine's work costs.
        size: Where prefixes may be.
        share: The share, between 0 and 1.

    Returns:
        None if `MOST_SESSIONS` keep more.
    """
    middle = _estimated(mix.thinned(MOST_TURNS), profile, size, share)
    if middle is None:
        return None
    random = np.random.default_rng(0)
    values = []
    for _ in range(_NUM_SAMPLES):
        sample = mix.resampled(random).thinned(MOST_TURNS)
        value = _estimated(sample, profile, size, share, near=middle)
        values.append(value or float(MOST_SESSIONS))
    low, high = map(float, np.percentile(values, (5, 95)))
    return Span(middle, min(low, middle), max(high, middle))


def estimated_curve(
    mix: TurnMix, profile: CostProfile, size: CacheSize, most: float
) -> list[tuple[float, float]]:
    """Loads, and the share that each keeps of an infinite cache's hits. Pure.

    Args:
        mix: The turns.
        profile: What the engine's work costs.
        size: Where prefixes may be.
        most: Most sessions at once.
    """
    thinned = mix.thinned(MOST_TURNS)
    loads = np.linspace(1.0, max(most, 2.0), _CURVE_POINTS)
    best = thinned.best_hit_ratio or 1.0
    return [
        (float(load), min(estimate_hits(thinned, profile, size, load).hit_ratio / best, 1.0))
        for load in map(float, loads)
    ]


def _estimated(
    mix: TurnMix, profile: CostProfile, size: CacheSize, share: float, near: float = 1.0
) -> float | None:
    """Sessions at which the share is crossed; the search begins at `near`."""
    wanted = share * mix.best_hit_ratio

    @cache
    def keeps(num_sessions: float) -> bool:
        return estimate_hits(mix, profile, size, num_sessions).hit_ratio >= wanted

    step = _FAR_STEP if near < _FAR else _NEAR_STEP
    high = max(near, 1.0)
    while keeps(high):
        if high > MOST_SESSIONS:
            return None
        high *= step
    low = max(high / step, 1.0)
    while low > 1.0 and not keeps(low):
        low, high = max(low / step, 1.0), low
    if not keeps(low):
        return low
    while high / low > 1.0 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return math.sqrt(low * high)


def search(
    share_at: Callable[[int], float], guess: float, most: int, shares: Sequence[float]
) -> tuple[dict[int, float], list[float | None]]:
    """Search for the sessions at which the share of hits falls to each of `shares`.

    Args:
        share_at: Runs so many sessions; returns their hits relative to an infinite cache's.
        guess: Where to begin, in sessions.
        most: Most sessions to run.
        shares: The shares, each between 0 and 1.

    Returns:
        The share at each load that was run, and for each of `shares` where it is crossed, or None
        if it is not by `most`.
    """
    seen: dict[int, float] = {}

    @cache
    def run(num_sessions: int) -> float:
        seen[num_sessions] = share_at(num_sessions)
        return seen[num_sessions]

    for share in shares:
        low = high = min(max(round(guess), 1), most)
        while run(low) < share and low > 1:
            low, high = max(min(low - 1, math.floor(low / _STEP)), 1), low
        while run(high) >= share and high < most:
            low, high = high, min(max(high + 1, math.ceil(high * _STEP)), most)
        while run(high) < share and high - low > 1 and high / low > _CLOSE:
            middle = (low + high) // 2
            low, high = (middle, high) if run(middle) >= share else (low, middle)
    return seen, [crossing(seen, share) for share in shares]


def crossing(share_by_load: dict[int, float], share: float) -> float | None:
    """Load at which a share is crossed first, interpolated; None if nowhere. Pure."""
    points = sorted(share_by_load.items())
    if points and points[0][1] < share:
        return float(points[0][0])
    for (lighter, before), (heavier, after) in pairwise(points):
        if before >= share > after:
            return lighter + (heavier - lighter) * (before - share) / (before - after)
    return None


def span_of(values: Sequence[float | None], most: int) -> Span | None:
    """Median and range over seeds; None if most of them cross nowhere. Pure."""
    known = [float(most) if value is None else value for value in values]
    if sum(value is None for value in values) * 2 > len(values):
        return None
    return Span(float(np.median(known)), min(known), max(known))
