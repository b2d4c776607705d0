"""How values depend on each other when their sizes are left out: scores of their ranks.

A score is where a value would lie were its kind normally distributed, with variance 1. What
sessions and neighbours have in common is then a share of that, whatever the unit and however long
the tail. Values that are equal, such as gaps of 0, say less about where each would lie: their
scores are as far apart as it takes for means and covariances, not variances, to be those of the
normal values behind (where covariances are small; strong ones come out stronger).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from holdfast.workload.study.distribution import Sample

__all__ = [
    "Numbers",
    "correlations",
    "next_correlation",
    "normal_scores",
    "session_levels",
    "session_share",
]

Numbers = NDArray[np.float64]

_NORMAL = NormalDist()


def normal_scores(values: Sample) -> Numbers:
    """Scores of values of one kind, of mean 0; equal values score equal. Pure.

    All 0 where all values are equal. Values that are not a number score as such.
    """
    known = np.asarray(values, dtype=np.float64)
    scores = np.full(known.size, np.nan)
    is_known = ~np.isnan(known)
    _, places, counts = np.unique(known[is_known], return_inverse=True, return_counts=True)
    if places.size == 0:
        return scores
    ranked = [_NORMAL.inv_cdf((rank + 0.5) / places.size) for rank in range(places.size)]
    means = np.add.reduceat(ranked, np.cumsum(counts) - counts) / counts
    each = means[places] / (np.std(ranked) or 1.0)
    variance = float(each.var())
    scores[is_known] = each / variance if variance > 0 else 0.0
    return scores


def session_share(scores: Numbers, sessions: NDArray[np.int64]) -> float:
    """Share of the variance that lies between sessions (0 to 1); 0 where that cannot be told. Pure.

    Args:
        scores: Of turns; those that are not a number are left out.
        sessions: The session of each turn.
    """
    return min(1.0, _variances(scores, sessions)[0])


def session_levels(scores: Numbers, sessions: NDArray[np.int64]) -> Numbers:
    """How far each session lies from all others as a whole. Pure.

    Its mean score drawn toward the mean of all sessions, the fewer scores the more, so that levels
    vary as much as sessions really do (`session_share`): chance would be added to chance where
    scores are drawn around them again. A session without scores lies at that mean.

    Args:
        scores: Of turns; those that are not a number are left out.
        sessions: The session of each turn, counted from 0; each has a turn.
    """
    between, within = _variances(scores, sessions)
    is_known = ~np.isnan(scores)
    nums = np.bincount(sessions, weights=is_known)
    sums = np.bincount(sessions, weights=np.where(is_known, scores, 0.0))
    has_scores = nums > 0
    nums = np.maximum(nums, 1.0)
    means = sums / nums
    overall = float(means[has_scores].mean()) if has_scores.any() else 0.0
    certainty = between / (between + within / nums) if between > 0 else np.zeros(nums.shape)
    return np.where(has_scores, overall + np.sqrt(certainty) * (means - overall), overall)


def next_correlation(own: Numbers, sessions: NDArray[np.int64], variance: float) -> float:
    """Correlation of a turn's value with the next one's of the session; 0 where unknown. Pure.

    Args:
        own: Scores less their session's level.
        sessions: The session of each turn.
        variance: Of the normal values behind, 0 to 1.
    """
    if own.size < 2:
        return 0.0
    is_same = sessions[1:] == sessions[:-1]
    return _correlation(own[:-1][is_same], own[1:][is_same], variance)


def correlations(columns: list[Numbers], variances: list[float]) -> tuple[tuple[float, ...], ...]:
    """Correlation of each pair of columns over the rows that all have; 0 where unknown. Pure.

    Args:
        columns: Scores less their session's level.
        variances: Of the normal values behind each, 0 to 1.
    """
    is_known = ~np.isnan(np.stack(columns)).any(axis=0)
    known = [(each[is_known], var) for each, var in zip(columns, variances, strict=True)]
    return tuple(
        tuple(
            1.0 if row == column else _correlation(left, right, (left_var * right_var) ** 0.5)
            for column, (right, right_var) in enumerate(known)
        )
        for row, (left, left_var) in enumerate(known)
    )


def _variances(scores: Numbers, sessions: NDArray[np.int64]) -> tuple[float, float]:
    """Variance between sessions and within them; 0 between where it cannot be told.

    One-way analysis of variance with groups of unequal size: what the means of sessions differ by
    beyond what the turns within them explain.
    """
    is_known = ~np.isnan(scores)
    scores = scores[is_known]
    _, groups, sizes = np.unique(sessions[is_known], return_inverse=True, return_counts=True)
    num_within = scores.size - sizes.size
    if sizes.size < 2 or num_within < 1:
        return 0.0, 1.0
    means = np.bincount(groups, weights=scores) / sizes
    between = float(sizes @ (means - scores.mean()) ** 2) / (sizes.size - 1)
    within = float(((scores - means[groups]) ** 2).sum()) / num_within
    typical_size = (scores.size - float((sizes**2).sum()) / scores.size) / (sizes.size - 1)
    return max(0.0, (between - within) / typical_size), within


def _correlation(left: Numbers, right: Numbers, variance: float) -> float:
    is_known = ~(np.isnan(left) | np.isnan(right))
    left, right = left[is_known], right[is_known]
    if left.size < 2 or variance <= 0:
        return 0.0
    covariance = float(np.mean((left - left.mean()) * (right - right.mean())))
    return min(1.0, max(-1.0, covariance / variance))
