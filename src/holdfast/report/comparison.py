"""Two policies side by side, computed from the results of their runs.

Knows nothing about how it will be shown. Runs are paired by seed within a point; a seed that only
one policy has run is left out of the ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from holdfast.core.results import Distribution, RunResult, ratio

__all__ = [
    "METRICS",
    "TIER_METRICS",
    "Comparison",
    "Interval",
    "Metric",
    "Point",
    "Row",
    "compare",
]

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of a comparison.

    Attributes:
        label: With its unit.
        better: Which direction is an improvement.
        value: Reads it from a result; None where the run cannot know.
        num_decimals: To show.
    """

    label: str
    better: Better
    value: Callable[[RunResult], float | None]
    num_decimals: int


@dataclass(frozen=True, slots=True)
class Interval:
    """Median of the seeds' values, and the lowest and highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One metric at one point.

    Attributes:
        metric: Which.
        baseline: None when no run of the baseline knows it.
        subject: None when no run of the subject knows it.
        gain: Median over seeds of how many times better the subject is (> 1 is better); None
            without a pair, with a zero denominator, or when neither direction is better.
    """

    metric: Metric
    baseline: Interval | None
    subject: Interval | None
    gain: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """One load on one cache size."""

    concurrency: int
    kv_tokens: int | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline, a subject, and the points at which both were measured, lightest load first."""

    baseline: str
    subject: str
    points: tuple[Point, ...]


def _part(
    distribution: Callable[[RunResult], Distribution | None], part: str
) -> Callable[[RunResult], float | None]:
    def value(run: RunResult) -> float | None:
        found = distribution(run)
        return None if found is None else getattr(found, part)

    return value


METRICS: Final[tuple[Metric, ...]] = (
    Metric("token hit ratio", "higher", lambda run: run.token_hit_ratio, 3),
    Metric("evicted blocks", "lower", lambda run: run.evicted_blocks, 0),
    Metric(
        "LLM time a session, mean (s)", "lower", _part(lambda r: r.session_llm_time_s, "mean"), 2
    ),
    Metric("TTFT p50 (s)", "lower", _part(lambda run: run.ttft_s, "p50"), 3),
    Metric("TTFT p99 (s)", "lower", _part(lambda run: run.ttft_s, "p99"), 3),
    Metric("request latency p50 (s)", "lower", _part(lambda r: r.request_latency_s, "p50"), 3),
    Metric("request latency p99 (s)", "lower", _part(lambda r: r.request_latency_s, "p99"), 3),
    Metric("makespan (s)", "lower", lambda run: run.makespan_s, 1),
    Metric("errors", "neither", lambda run: run.num_errors, 0),
)


def _num_computed(run: RunResult) -> float | None:
    hit_ratio = run.token_hit_ratio
    return None if hit_ratio is None else run.prompt_tokens * (1.0 - hit_ratio)


TIER_METRICS: Final[tuple[Metric, ...]] = (
    Metric("prompt tokens", "neither", lambda run: run.prompt_tokens, 0),
    Metric("computed", "lower", _num_computed, 0),
    Metric("from host memory", "neither", lambda run: run.host_tokens, 0),
    Metric("from disk", "neither", lambda run: run.disk_tokens, 0),
    *METRICS[2:],
)
"""What tiers below the cache change."""


def compare(
    runs: Iterable[RunResult],
    *,
    baseline: str = "vllm-default",
    subject: str = "holdfast",
    metrics: Sequence[Metric] = METRICS,
) -> Comparison:
    """Pair the runs of two policies; pure. Runs of other policies are ignored."""
    chosen = [run for run in runs if run.policy in (baseline, subject)]
    loads = sorted({(run.concurrency, run.kv_tokens or 0) for run in chosen})
    points = []
    for concurrency, kv_tokens in loads:
        at_load = [
            r for r in chosen if (r.concurrency, r.kv_tokens or 0) == (concurrency, kv_tokens)
        ]
        first = {run.seed: run for run in at_load if run.policy == baseline}
        second = {run.seed: run for run in at_load if run.policy == subject}
        rows = tuple(_row(metric, first, second) for metric in metrics)
        seeds = tuple(sorted(first.keys() | second.keys()))
        points.append(Point(concurrency, kv_tokens or None, seeds, rows))
    return Comparison(baseline, subject, tuple(points))


def _row(metric: Metric, first: dict[int, RunResult], second: dict[int, RunResult]) -> Row:
    gains = []
    for seed in sorted(first.keys() & second.keys()):
        gain = _gain(metric, metric.value(first[seed]), metric.value(second[seed]))
        if gain is not None:
            gains.append(gain)
    return Row(
        metric,
        _interval([metric.value(run) for run in first.values()]),
        _interval([metric.value(run) for run in second.values()]),
        statistics.median(gains) if gains else None,
    )


def _gain(metric: Metric, baseline: float | None, subject: float | None) -> float | None:
    if metric.better == "neither":
        return None
    return ratio(subject, baseline) if metric.better == "higher" else ratio(baseline, subject)


def _interval(values: Sequence[float | None]) -> Interval | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Interval(statistics.median(known), min(known), max(known))
