"""Runs of several policies against a baseline, at every load.

Knows nothing about how it is shown: `tables` lays it out, `terminal` and `page` render it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import (
    BASELINE,
    BOUND,
    FLOOR,
    Distance,
    RunsBySeed,
    by_policy,
    distance,
)
from holdfast.report.gain import Gain, Interval, paired_gain, paired_ratio, spread
from holdfast.report.metrics import ALL_METRICS, Metric, objective
from holdfast.report.run_point import RunPoint

__all__ = [
    "SUBJECT",
    "Comparison",
    "Entry",
    "Point",
    "Score",
    "compare",
    "compare_pair",
    "policy_order",
]

SUBJECT: Final = "holdfast"
RELAXATION: Final = "all-kept"


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one policy at one point.

    Attributes:
        metric: The metric.
        interval: Over all seeds of the policy; None when no run knows it.
        gain: Over the baseline; None for the baseline itself, without a ratio, or when neither
            direction is better.
        ratio: Policy / baseline, whichever direction is better; None likewise.
    """

    metric: Metric
    interval: Interval | None
    gain: Gain | None
    ratio: Gain | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One policy at one point.

    Attributes:
        policy: Its name.
        seeds: Seeds that it has run.
        partial_seeds: Seeds whose run was stopped before all sessions had ended.
        num_errors: Failed turns of all its runs.
        scores: One for each metric of the comparison, in that order.
        distance: How far it is from the bound.
    """

    policy: str
    seeds: tuple[int, ...]
    partial_seeds: tuple[int, ...]
    num_errors: int
    scores: tuple[Score, ...]
    distance: Distance

    def score(self, label: str) -> Score:
        """The score of the metric with a label; pure.

        Raises:
            KeyError: No metric has it.
        """
        for score in self.scores:
            if score.metric.label == label:
                return score
        raise KeyError(label)


@dataclass(frozen=True, slots=True)
class Point:
    """One load on one cache size.

    Attributes:
        load: Which load and cache that is.
        objective: The figure that counts here.
        lower_bound: Of that figure, under any policy; None where it is not known.
        seeds: Seeds of any policy.
        entries: One for each policy that has runs here, in the order of the comparison.
    """

    load: RunPoint
    objective: Metric
    lower_bound: Interval | None
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]

    def entry(self, policy: str) -> Entry | None:
        """The entry of a policy; None where it has no run; pure."""
        return next((entry for entry in self.entries if entry.policy == policy), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All policies at all points, by concurrency and then by cache size.

    Attributes:
        baseline: The policy that gains are over.
        policies: All policies, in order.
        metrics: The metrics compared.
        points: The points, the lightest load first.
    """

    baseline: str
    policies: tuple[str, ...]
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]


def policy_order(policies: Iterable[str], baseline: str = BASELINE) -> tuple[str, ...]:
    """Floor, baseline, published policies by name, Holdfast, bounds; each once; pure."""
    ranks = {FLOOR: 0, SUBJECT: 3, BOUND: 4, RELAXATION: 5, baseline: 1}
    return tuple(sorted(set(policies), key=lambda policy: (ranks.get(policy, 2), policy)))


def compare(
    runs: Iterable[RunResult],
    *,
    baseline: str = BASELINE,
    policies: Sequence[str] | None = None,
    metrics: Sequence[Metric] = ALL_METRICS,
) -> Comparison:
    """Compare policies at every point; pure.

    Args:
        runs: Of runs with equal policy, seed and point the last counts.
        baseline: The policy that gains are over.
        policies: Policies to compare, in this order; None compares all, in `policy_order`.
        metrics: The metrics to compare.
    """
    at_load: dict[RunPoint, list[RunResult]] = {}
    for run in runs:
        if policies is None or run.policy in policies:
            at_load.setdefault(RunPoint.of(run), []).append(run)
    found = {run.policy for at_point in at_load.values() for run in at_point}
    order = policy_order(found, baseline) if policies is None else tuple(policies)
    points = tuple(
        _point(load, by_policy(at_load[load]), order, baseline, metrics)
        for load in sorted(at_load, key=lambda load: load.order)
    )
    return Comparison(baseline, order, tuple(metrics), points)


def compare_pair(
    first: RunResult, second: RunResult | None, metrics: Sequence[Metric]
) -> Comparison:
    """Compare the second run with the first, as one point; pure.

    Names and cache sizes of the two may be equal or not; a second run of the same name gets
    another name.
    """
    sides = {first.policy: {first.seed: first}}
    if second is not None:
        name = second.policy if second.policy != first.policy else f"{second.policy} (second)"
        sides[name] = {first.seed: second}
    same_cache = second is None or second.kv_tokens == first.kv_tokens
    load = RunPoint(first.concurrency, first.kv_tokens if same_cache else None)
    point = _point(load, sides, tuple(sides), first.policy, metrics)
    return Comparison(first.policy, tuple(sides), tuple(metrics), (point,))


def _point(
    load: RunPoint,
    runs: Mapping[str, RunsBySeed],
    order: Sequence[str],
    baseline: str,
    metrics: Sequence[Metric],
) -> Point:
    seeds = sorted({seed for of_policy in runs.values() for seed in of_policy})
    entries = [_entry(policy, runs, baseline, metrics) for policy in order if policy in runs]
    all_runs = [run for of_policy in runs.values() for run in of_policy.values()]
    bounds_s = {run.seed: run.session_llm_time_bound_s for run in all_runs}
    return Point(load, objective(all_runs), spread(bounds_s.values()), tuple(seeds), tuple(entries))


def _entry(
    policy: str, by_name: Mapping[str, RunsBySeed], baseline: str, metrics: Sequence[Metric]
) -> Entry:
    runs = by_name[policy]
    reference = by_name.get(baseline, {}) if policy != baseline else {}
    return Entry(
        policy=policy,
        seeds=tuple(sorted(runs)),
        partial_seeds=tuple(sorted(seed for seed, run in runs.items() if run.partial)),
        num_errors=sum(run.num_errors for run in runs.values()),
        scores=tuple(
            Score(
                metric,
                spread(metric.value(run) for run in runs.values()),
                paired_gain(metric, reference, runs),
                paired_ratio(metric, runs, reference),
            )
            for metric in metrics
        ),
        distance=distance(by_name, policy, baseline),
    )
