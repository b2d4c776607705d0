"""Simulated runs read back, and their figures against the limits that were asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from anchor.points import MEASURED, Point

__all__ = ["LIMITS", "Curve", "Runs", "Value", "crossing", "measured", "value_of"]

# Asked for: hits within 5 points off the steepest part, others within a share of the measured.
LIMITS = {"hit_ratio": 0.05, "output_tokens_per_s": 0.15, "ttft_p50_s": 0.15, "ttft_p99_s": 0.30}

# Past these hits a point lies on the steepest part of the cliff.
_STEEP = (0.15, 0.85)

# Loads further apart, in working set / KV, are not interpolated between.
_WIDEST_GAP = 0.5

# Figures that a step's measurement takes from its steady part.
_STEADY = {
    **dict.fromkeys((8, 20), ("hit_ratio", "gpu_hit_ratio", "tier_hit_ratio", "working_set_ratio")),
    24: (),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A figure over several seeds, or over several measured runs.

    Attributes:
        middle: Median of the seeds; mean of measured runs.
        low: Lowest.
        high: Highest.
    """

    middle: float
    low: float
    high: float

    def within(self, name: str, measured: Value) -> bool | None:
        """Whether a simulated figure is as near as is asked; None where nothing is. Pure."""
        limit = LIMITS.get(name)
        if limit is None:
            return None
        if name == "hit_ratio":
            if _STEEP[0] < measured.middle < _STEEP[1]:
                return None
            return abs(self.middle - measured.middle) <= limit
        return abs(self.middle / measured.middle - 1) <= limit


@dataclass(frozen=True)
class Runs:
    """All parts that have been run, by point.

    Attributes:
        parts: The seeds' parts of each point.
    """

    parts: dict[Point, list[dict[str, Any]]]

    @classmethod
    def read(cls, directory: Path) -> Runs:
        """Read the parts in a directory."""
        parts: dict[Point, list[dict[str, Any]]] = {}
        for path in sorted(directory.glob("gpu_anchor-*.json")):
            part = json.loads(path.read_text())
            parts.setdefault(Point(**part["point"]), []).append(part)
        return cls(parts)

    def seeds(self, point: Point) -> set[int]:
        """Seeds that have run."""
        return {part["seed"] for part in self.parts.get(point, ())}

    def value(self, point: Point, name: str, seeds: set[int] | None = None) -> Value | None:
        """A figure of a point, from the part of the run that its measurement counts.

        Args:
            point: The point.
            name: Name of the figure.
            seeds: Only these; None takes all that have run.
        """
        part = "steady" if name in _STEADY[point.step] else "whole"
        chosen = [p for p in self.parts.get(point, ()) if seeds is None or p["seed"] in seeds]
        found = [each[part].get(name) for each in chosen]
        values = [value for value in found if value is not None]
        return Value(median(values), min(values), max(values)) if values else None

    def stock_curve(self, step: int, host_tokens: int, variation: str = "") -> list[Point]:
        """Points of stock vLLM along the load, lightest first."""
        chosen = [
            point
            for point in self.parts
            if (point.step, point.host_tokens, point.variation) == (step, host_tokens, variation)
            and point.policy == "vllm-default"
        ]
        return sorted(chosen, key=lambda point: point.concurrency)


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure along the load, by working set relative to the KV cache.

    Attributes:
        points: Working set and figure, in the order of the load.
        is_ratio: Whether to interpolate linearly; times are interpolated by their logarithms.
    """

    points: Sequence[tuple[float, float]]
    is_ratio: bool

    def at(self, pressure: float) -> float | None:
        """The figure at a working set; None outside of the curve and in wide gaps. Pure."""
        for (x0, y0), (x1, y1) in pairwise(self.points):
            if x0 <= pressure <= x1 <= x0 + _WIDEST_GAP:
                share = (pressure - x0) / (x1 - x0) if x1 > x0 else 0.0
                if self.is_ratio:
                    return y0 + share * (y1 - y0)
                return math.exp(math.log(y0) + share * (math.log(y1) - math.log(y0)))
        return None


def crossing(points: Sequence[tuple[float, float]], hit_ratio: float = 0.5) -> float | None:
    """Where the hit ratio falls below a half, by linear interpolation; None nowhere. Pure."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 >= hit_ratio > y1:
            return x0 + (y0 - hit_ratio) / (y0 - y1) * (x1 - x0)
    return None


def measured(step: int, arm: str = "stock", *, tier: bool) -> Iterator[dict[str, Any]]:
    """Measured points of a step, lightest first; those of step 13 are among step 20's."""
    steps = {8: ("step_08",), 20: ("step_20", "step_13"), 24: ("step_24",)}[step]
    rows = [row for name in steps for row in MEASURED[name]["points"]]
    chosen = [r for r in rows if r["arm"] == arm and bool(r.get("host_tokens")) == tier]
    yield from sorted(chosen, key=lambda row: row.get("concurrency", 0))


def value_of(figure: float | list[float] | None) -> Value | None:
    """A measured figure."""
    if figure is None:
        return None
    return Value(*figure) if isinstance(figure, list) else Value(figure, figure, figure)
