"""Outcomes of an evaluation, summed up by method and share."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from holdfast.compress.certificate import certified_share
from holdfast.compress.outcome import FULL, Outcome

__all__ = ["MethodSummary", "certified", "sentence", "summaries"]

_NUM_RESAMPLES = 2_000
_LARGEST_RISK, _ERROR_RATE = 0.1, 0.05

Context = tuple[str, int]
"""A sample's task and seed. Questions to one context are not independent; contexts are."""


class MethodSummary(msgspec.Struct, frozen=True):
    """What a method costs at a share, against the full cache on the same questions.

    Attributes:
        method: The method's spelling, or `full`.
        share: Entries that stay, of all tokens (0 to 1].
        num_contexts: Contexts (count).
        num_questions: Questions (count).
        exact_percent: Questions with exactly the right answer (0 to 100).
        exact_loss_points: Percentage points below the full cache, negative if above.
        exact_loss_low: Lower end of its 95 % interval over contexts.
        exact_loss_high: Upper end.
        nll: Mean -log p a token of right answers (nats).
        nll_excess: Above the full cache's (nats).
        nll_excess_low: Lower end of its 95 % interval over contexts.
        nll_excess_high: Upper end.
        nll_worst: The same of the worst question.
        retained_mean: Share of questions' attention to the context that stays, mean (0 to 1).
        retained_min: Of the worst head at the worst question.
    """

    method: str
    share: float
    num_contexts: int
    num_questions: int
    exact_percent: float
    exact_loss_points: float
    exact_loss_low: float
    exact_loss_high: float
    nll: float
    nll_excess: float
    nll_excess_low: float
    nll_excess_high: float
    nll_worst: float
    retained_mean: float
    retained_min: float


def summaries(outcomes: Iterable[Outcome]) -> list[MethodSummary]:
    """A summary for each method and share, in the order of outcomes. Pure.

    Args:
        outcomes: All outcomes of an evaluation, the full cache's among them.
    """
    grouped: dict[tuple[str, float], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        grouped[outcome.method, outcome.share].append(outcome)
    full = {_question(outcome): outcome for outcome in grouped.get((FULL, 1.0), ())}
    return [_summary(method, share, group, full) for (method, share), group in grouped.items()]


def certified(outcomes: Iterable[Outcome]) -> dict[str, float | None]:
    """The certified share of each method. Pure.

    It is the smallest one that loses an answer in at most 10 % of contexts, with an error rate of
    5 %; None where there is none. A context loses an answer where the full cache has it exactly
    and the compacted one does not.
    """
    found: dict[str, dict[float, dict[Context, bool]]] = defaultdict(lambda: defaultdict(dict))
    right: set[tuple[str, int, int, int]] = set()
    for outcome in outcomes:
        if outcome.method == FULL:
            if outcome.is_exact:
                right.add(_question(outcome))
            continue
        lost = found[outcome.method][outcome.share]
        is_lost = not outcome.is_exact and _question(outcome) in right
        lost[_context(outcome)] = lost.get(_context(outcome), False) or is_lost
    return {
        method: certified_share(
            [(share, list(lost.values())) for share, lost in by_share.items()],
            largest_risk=_LARGEST_RISK,
            error_rate=_ERROR_RATE,
        )
        for method, by_share in found.items()
    }


def sentence(found: Sequence[MethodSummary], share: float) -> str:
    """One sentence about the best method at a share, by NLL. Pure.

    Args:
        found: Summaries; the share is one of theirs.
        share: The share.
    """
    at_share = [row for row in found if row.share == share and row.method != FULL]
    best = min(at_share, key=lambda row: row.nll_excess)
    full = next(row for row in found if row.method == FULL)
    return (
        f"At {100 * share:.0f} % of the cache you lose"
        f" {best.exact_loss_points:.0f} points of exact answers"
        f" ({full.exact_percent:.0f} % → {best.exact_percent:.0f} %,"
        f" 95 % interval {best.exact_loss_low:.0f} to {best.exact_loss_high:.0f})"
        f" with {best.method}, the best of {len(at_share)} methods."
    )


def _summary(
    method: str,
    share: float,
    group: Sequence[Outcome],
    full: Mapping[tuple[str, int, int, int], Outcome],
) -> MethodSummary:
    excess: dict[Context, list[float]] = defaultdict(list)
    lost: dict[Context, list[float]] = defaultdict(list)
    for outcome in group:
        other = full[_question(outcome)]
        excess[_context(outcome)].append(outcome.nll - other.nll)
        lost[_context(outcome)].append(100.0 * (other.is_exact - outcome.is_exact))
    exact_low, exact_high = _interval(list(lost.values()))
    nll_low, nll_high = _interval(list(excess.values()))
    return MethodSummary(
        method=method,
        share=share,
        num_contexts=len(excess),
        num_questions=len(group),
        exact_percent=100.0 * statistics.fmean(outcome.is_exact for outcome in group),
        exact_loss_points=_mean(list(lost.values())),
        exact_loss_low=exact_low,
        exact_loss_high=exact_high,
        nll=statistics.fmean(outcome.nll for outcome in group),
        nll_excess=_mean(list(excess.values())),
        nll_excess_low=nll_low,
        nll_excess_high=nll_high,
        nll_worst=max(outcome.nll for outcome in group),
        retained_mean=statistics.fmean(outcome.retained_mean for outcome in group),
        retained_min=min(outcome.retained_min for outcome in group),
    )


def _interval(contexts: Sequence[Sequence[float]]) -> tuple[float, float]:
    """A 95 % interval of the mean over questions, by resampling contexts."""
    choose = random.Random(0)
    means = sorted(_mean(choose.choices(contexts, k=len(contexts))) for _ in range(_NUM_RESAMPLES))
    return means[_NUM_RESAMPLES // 40], means[-_NUM_RESAMPLES // 40 - 1]


def _mean(contexts: Sequence[Sequence[float]]) -> float:
    """Mean over the questions of all contexts."""
    return sum(map(sum, contexts)) / sum(map(len, contexts))


def _question(outcome: Outcome) -> tuple[str, int, int, int]:
    return outcome.task, outcome.seed, outcome.turn, outcome.question


def _context(outcome: Outcome) -> Context:
    return outcome.task, outcome.seed
