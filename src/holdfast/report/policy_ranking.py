"""Many policies ranked at every load, computed from the results of their runs.

Knows nothing about how it will be shown. Gains are paired by seed, because the same seed means the
same sessions in the same order: the spread between seeds then says nothing about the policies.

The interval of a gain is Student's t on the logarithms of the ratios; without scipy there is none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.core.results import Distribution, RunResult, ratio
from holdfast.errors import PolicyError
from holdfast.policies.base import Need
from holdfast.policies.registry import policy_class
from holdfast.report.comparison import METRICS, Interval, Metric

__all__ = [
    "BASELINE",
    "BOUND",
    "CONFIDENCE",
    "FLOOR",
    "LLM_TIME",
    "RANKING_METRICS",
    "SUBJECT",
    "Distance",
    "Entry",
    "Gain",
    "PolicyRanking",
    "RankingPoint",
    "Score",
    "distance_to_bound",
    "knows_future",
    "paired_gain",
    "policy_order",
    "spread",
    "stand",
]

BASELINE: Final = "vllm-default"
FLOOR: Final = "stateless"
RELAXATION: Final = "all-kept"
SUBJECT: Final = "holdfast"
BOUND: Final = "clairvoyant"
CONFIDENCE: Final = 0.95

_LEAST_DISTANCE_RATIO: Final = 0.01
"""A bound nearer than this to where the distance starts leaves nothing to take a share of."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times better than the baseline a policy is; above 1 is better.

    Attributes:
        mean: Geometric mean over the seeds with a ratio; 0 when one of them is 0.
        low: Lower end of the confidence interval; None with fewer than two ratios, or one of 0.
        high: Upper end, None as `low`.
        by_seed: The ratio of every seed that both have run and know the metric of; None where its
            denominator is 0.
    """

    mean: float
    low: float | None
    high: float | None
    by_seed: tuple[tuple[int, float | None], ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one policy at one point.

    Attributes:
        metric: Which.
        interval: Over all seeds of the policy; None when no run knows it.
        gain: None for the baseline itself, without a ratio, or when neither direction is better.
    """

    metric: Metric
    interval: Interval | None
    gain: Gain | None


@dataclass(frozen=True, slots=True)
class Distance:
    """Where a policy's mean LLM time a session lies, seen from the bound.

    Attributes:
        times_bound: Policy / bound, geometric mean over common seeds; 1 is as good as the bound.
        share_from_floor: Part of the way from the floor to the bound that the policy covers, of
            the means over common seeds; below 0 when it is worse than the floor. None where the
            bound is less than 1 % better than the floor.
        share_from_baseline: The same from the baseline.
    """

    times_bound: float | None
    share_from_floor: float | None
    share_from_baseline: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One policy at one point.

    Attributes:
        seeds: Those it has run.
        partial_seeds: Those whose run was stopped before all sessions had ended.
        num_errors: Failed turns of all its runs.
        scores: One for each of `RANKING_METRICS`, in that order.
    """

    policy: str
    seeds: tuple[int, ...]
    partial_seeds: tuple[int, ...]
    num_errors: int
    scores: tuple[Score, ...]
    distance: Distance

    def score(self, label: str) -> Score:
        """Look up by the metric's label; pure.

        Raises:
            KeyError: No metric has it.
        """
        for score in self.scores:
            if score.metric.label == label:
                return score
        raise KeyError(label)


@dataclass(frozen=True, slots=True)
class RankingPoint:
    """One load on one cache size.

    Attributes:
        seeds: Those of any policy.
        entries: In `policy_order`.
    """

    concurrency: int
    kv_tokens: int | None
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class PolicyRanking:
    """All policies at all points, by concurrency and then by cache size."""

    baseline: str
    policies: tuple[str, ...]
    points: tuple[RankingPoint, ...]


def _llm_time(part: str) -> Callable[[RunResult], float | None]:
    def value(run: RunResult) -> float | None:
        times_s: Distribution | None = run.session_llm_time_s
        return None if times_s is None else getattr(times_s, part)

    return value


def _scheduler_step_us(run: RunResult) -> float | None:
    step_s = ratio(run.scheduler_cpu_s, run.engine_steps)
    return None if step_s is None else 1e6 * step_s


LLM_TIME: Final = next(m for m in METRICS if m.label == "LLM time a session, mean (s)")

RANKING_METRICS: Final[tuple[Metric, ...]] = (
    *METRICS,
    Metric("LLM time a session, p50 (s)", "lower", _llm_time("p50"), 2),
    Metric("LLM time a session, p99 (s)", "lower", _llm_time("p99"), 2),
    Metric("goodput (tokens/s)", "higher", lambda run: run.goodput_tokens_per_s, 1),
    Metric("recomputed tokens", "lower", lambda run: run.recomputed_tokens, 0),
    Metric("preemptions", "lower", lambda run: run.preemptions, 0),
    Metric("scheduler CPU a step (\u00b5s)", "lower", _scheduler_step_us, 1),
)


def policy_order(policies: Iterable[str], baseline: str = BASELINE) -> tuple[str, ...]:
    """Floor, baseline, published ones by name, Holdfast, bounds; each once; pure."""
    places = {FLOOR: 0, SUBJECT: 3, BOUND: 4, RELAXATION: 5, baseline: 1}
    return tuple(sorted(set(policies), key=lambda policy: (places.get(policy, 2), policy)))


def knows_future(policy: str) -> bool:
    """Whether no engine could run the policy; a name that is not known here can. Pure."""
    try:
        return Need.FUTURE in policy_class(policy).spec.needs
    except PolicyError:
        return False


def stand(runs: Iterable[RunResult], baseline: str = BASELINE) -> PolicyRanking:
    """Rank the policies at every point; pure.

    Of runs with equal policy, seed and point the last counts.
    """
    at_load: dict[tuple[int, int | None], list[RunResult]] = {}
    for run in runs:
        at_load.setdefault((run.concurrency, run.kv_tokens), []).append(run)
    loads = sorted(at_load, key=lambda load: (load[0], load[1] or 0))
    points = tuple(_point(load, at_load[load], baseline) for load in loads)
    named = {entry.policy for point in points for entry in point.entries}
    return PolicyRanking(baseline, policy_order(named, baseline), points)


def distance_to_bound(
    runs: Iterable[RunResult], policy: str, *, baseline: str = BASELINE
) -> Distance:
    """How far `policy` is from the bound; pure.

    Args:
        runs: Of all policies at one point.
        policy: Whose distance.
        baseline: Where the second share starts.

    Raises:
        ValueError: The runs are of more than one point, which a seed cannot pair.
    """
    known = list(runs)
    if len({(run.concurrency, run.kv_tokens) for run in known}) > 1:
        raise ValueError("runs of more than one point have no common bound")
    return _distance(_by_policy(known), policy, baseline)


def paired_gain(
    metric: Metric, baseline: Mapping[int, RunResult], subject: Mapping[int, RunResult]
) -> Gain | None:
    """Compare runs by seed; pure. None without a ratio, or when neither direction is better.

    Args:
        metric: What to compare.
        baseline: Runs by seed.
        subject: Runs by seed; seeds of only one side are left out.
    """
    if metric.better == "neither":
        return None
    by_seed: list[tuple[int, float | None]] = []
    for seed in sorted(baseline.keys() & subject.keys()):
        before, after = metric.value(baseline[seed]), metric.value(subject[seed])
        if before is not None and after is not None:
            better, worse = (after, before) if metric.better == "higher" else (before, after)
            by_seed.append((seed, ratio(better, worse)))
    ratios = [value for _, value in by_seed if value is not None]
    if not ratios:
        return None
    if min(ratios) <= 0:
        return Gain(0.0, None, None, tuple(by_seed))
    low, high = _log_interval(ratios)
    return Gain(statistics.geometric_mean(ratios), low, high, tuple(by_seed))


def spread(values: Iterable[float | None]) -> Interval | None:
    """Median, lowest and highest of the known values; None without any; pure."""
    known = [value for value in values if value is not None]
    return Interval(statistics.median(known), min(known), max(known)) if known else None


def _by_policy(runs: Iterable[RunResult]) -> dict[str, dict[int, RunResult]]:
    by_policy: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        by_policy.setdefault(run.policy, {})[run.seed] = run
    return by_policy


def _point(load: tuple[int, int | None], runs: Sequence[RunResult], baseline: str) -> RankingPoint:
    by_policy = _by_policy(runs)
    entries = tuple(
        _entry(policy, by_policy, baseline) for policy in policy_order(by_policy, baseline)
    )
    return RankingPoint(*load, tuple(sorted({run.seed for run in runs})), entries)


def _entry(policy: str, by_policy: Mapping[str, Mapping[int, RunResult]], baseline: str) -> Entry:
    runs = by_policy[policy]
    reference = by_policy.get(baseline, {}) if policy != baseline else {}
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
            )
            for metric in RANKING_METRICS
        ),
        distance=_distance(by_policy, policy, baseline),
    )


def _distance(
    by_policy: Mapping[str, Mapping[int, RunResult]], policy: str, baseline: str
) -> Distance:
    runs = by_policy.get(policy, {})
    bound = by_policy.get(BOUND, {})
    gain_of_bound = paired_gain(LLM_TIME, runs, bound)
    return Distance(
        times_bound=None if gain_of_bound is None else gain_of_bound.mean,
        share_from_floor=_share(by_policy.get(FLOOR, {}), runs, bound),
        share_from_baseline=_share(by_policy.get(baseline, {}), runs, bound),
    )


def _share(
    start: Mapping[int, RunResult], runs: Mapping[int, RunResult], bound: Mapping[int, RunResult]
) -> float | None:
    """Of the means, not a mean of shares, which one seed with a near bound would dominate."""
    way_s, covered_s, start_s = 0.0, 0.0, 0.0
    for seed in sorted(start.keys() & runs.keys() & bound.keys()):
        times_s = [LLM_TIME.value(side[seed]) for side in (start, runs, bound)]
        from_s, at_s, to_s = times_s
        if from_s is None or at_s is None or to_s is None:
            continue
        start_s += from_s
        covered_s += from_s - at_s
        way_s += from_s - to_s
    return ratio(covered_s, way_s) if way_s >= _LEAST_DISTANCE_RATIO * start_s else None


def _log_interval(ratios: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    try:
        from scipy.special import stdtrit
    except ImportError:  # results are worth showing without it
        return None, None
    if len(ratios) < 2:
        return None, None
    logs = [math.log(value) for value in ratios]
    centre = statistics.fmean(logs)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2)) * error
    return math.exp(centre - half), math.exp(centre + half)
