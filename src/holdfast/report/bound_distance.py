"""The distance of a policy to the bound, the best of rules that know the future."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from holdfast.core.results import RunResult, ratio
from holdfast.errors import PolicyError
from holdfast.policies.base import Need
from holdfast.policies.engine_modes import ENGINE_MODES, STOCK
from holdfast.policies.registry import policy_spec
from holdfast.report.gain import paired_gain
from holdfast.report.metrics import Metric, objective
from holdfast.report.run_point import RunPoint

__all__ = [
    "BASELINE",
    "BOUND",
    "FLOOR",
    "Distance",
    "RunsBySeed",
    "best_rules",
    "by_policy",
    "distance",
    "distance_to_bound",
    "knows_future",
]

BASELINE: Final = "vllm-default"
FLOOR: Final = "stateless"
BOUND: Final = "clairvoyant"

_LEAST_DISTANCE_RATIO: Final = 0.01
"""A bound that is less than this better than the start leaves no distance to take a share of."""

RunsBySeed = Mapping[int, RunResult]


@dataclass(frozen=True, slots=True)
class Distance:
    """A policy's LLM time a session, in a window its output, relative to the bound's.

    Attributes:
        times_bound: Policy / bound, geometric mean over common seeds; 1 is as good as the bound.
        share_from_floor: Part of the distance from the floor to the bound that the policy covers,
            of the means over common seeds; below 0 when it is worse than the floor. None where
            the bound is less than 1 % better than the floor.
        share_from_baseline: The same from the baseline.
    """

    times_bound: float | None
    share_from_floor: float | None
    share_from_baseline: float | None


def distance_to_bound(
    runs: Iterable[RunResult], policy: str, *, baseline: str = BASELINE
) -> Distance:
    """The distance of `policy` to the bound; pure.

    Args:
        runs: Runs of all policies at one point.
        policy: Name of the policy.
        baseline: Start of the second share.

    Raises:
        ValueError: The runs are of more than one point, so seeds cannot pair them.
    """
    known = list(runs)
    if len({RunPoint.of(run) for run in known}) > 1:
        raise ValueError("runs of more than one point have no common bound")
    return distance(by_policy(known), policy, baseline)


def by_policy(runs: Iterable[RunResult]) -> dict[str, dict[int, RunResult]]:
    """Runs by policy and seed; of equal ones the last counts; pure."""
    grouped: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        grouped.setdefault(run.policy, {})[run.seed] = run
    return grouped


def distance(runs: Mapping[str, RunsBySeed], policy: str, baseline: str) -> Distance:
    """As `distance_to_bound`, of runs by policy and seed; pure."""
    own, bound = runs.get(policy, {}), runs.get(BOUND, {})
    metric = objective([*own.values(), *bound.values()])
    gain_of_bound = paired_gain(metric, own, bound)
    return Distance(
        times_bound=None if gain_of_bound is None else gain_of_bound.mean,
        share_from_floor=_share(metric, runs.get(FLOOR, {}), own, bound),
        share_from_baseline=_share(metric, runs.get(baseline, {}), own, bound),
    )


def best_rules(runs: Iterable[RunResult]) -> list[RunResult]:
    """The runs, the bound's replaced by the best rule's of its point and seed.

    The bound is a search over rules, and each run beside it is one of them: a rule that happens to
    be better at a seed becomes the bound there. An infinite cache is no rule. Pure.
    """
    known = list(runs)
    rules = [r for r in known if not ENGINE_MODES.get(r.policy, STOCK).has_infinite_cache]
    return [_best_of(run, rules) if run.policy == BOUND else run for run in known]


def _best_of(bound: RunResult, rules: Iterable[RunResult]) -> RunResult:
    metric = objective([bound])
    sign = 1.0 if metric.better == "lower" else -1.0
    best, best_value = bound, metric.value(bound)
    for run in rules:
        value = metric.value(run)
        if run.seed != bound.seed or RunPoint.of(run) != RunPoint.of(bound) or value is None:
            continue
        if best_value is None or sign * value < sign * best_value:
            best, best_value = run, value
    return structs.replace(best, policy=BOUND)


def knows_future(policy: str) -> bool:
    """Whether only a simulation can run the policy; False for an unknown name. Pure."""
    try:
        return Need.FUTURE in policy_spec(policy).needs
    except PolicyError:
        return False


def _share(metric: Metric, start: RunsBySeed, runs: RunsBySeed, bound: RunsBySeed) -> float | None:
    """Share of the means; one seed with a near bound would dominate a mean of shares."""
    sign = 1.0 if metric.better == "lower" else -1.0
    distance, covered, started = 0.0, 0.0, 0.0
    for seed in sorted(start.keys() & runs.keys() & bound.keys()):
        begin, at, end = (metric.value(side[seed]) for side in (start, runs, bound))
        if begin is None or at is None or end is None:
            continue
        started += begin
        covered += sign * (begin - at)
        distance += sign * (begin - end)
    if distance < _LEAST_DISTANCE_RATIO * started:
        return None
    return ratio(covered, distance)
