"""Normal scores of ranks, and correlations of scores within and between sessions.

A score is the value's rank mapped to the standard normal distribution. Shares of variance and
correlations of scores are independent of units and of long tails. Ties, such as gaps of 0, carry
less information: their scores are scaled so that means and covariances, not variances, match those
of the latent normal values. The match is close for small covariances; large ones are overestimated.
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
    """Scores of values of one kind, with mean 0; equal values have equal scores. Pure.

    All scores are 0 if all values are equal. NaN values have NaN scores.
    """
    known = np.asarray(values, dtype=np.float64)
    scores = np.full(known.size, np.nan)
    is_known = ~np.isnan(known)
    _, groups, counts = np.unique(known[is_known], return_inverse=True, return_counts=True)
    if groups.size == 0:
        return scores
    ranked = [_NORMAL.inv_cdf((rank + 0.5) / groups.size) for rank in range(groups.size)]
    means = np.add.reduceat(ranked, np.cumsum(counts) - counts) / counts
    each = means[groups] / (np.std(ranked) or 1.0)
    variance = float(each.var())
    scores[is_known] = each / variance if variance > 0 else 0.0
    return scores


def session_share(scores: Numbers, sessions: NDArray[np.int64]) -> float:
    """Share of the variance between sessions (0 to 1); 0 where unknown. Pure.

    Args:
        scores: Scores of turns; NaN is left out.
        sessions: The session of each turn.
    """
    return min(1.0, _variances(scores, sessions)[0])


def session_levels(scores: Numbers, sessions: NDArray[np.int64]) -> Numbers:
    """The level of each session: its mean score, shrunk to the overall mean. Pure.

    Sessions with fewer scores shrink more, so that levels vary as much as `session_share` says;
    otherwise a draw of scores around them would count the noise twice. A session without scores has
    the overall mean.

    Args:
        scores: Scores of turns; NaN is left out.
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
    """Correlation of consecutive turns' values; 0 where unknown. Pure.

    Args:
        own: Scores less their session's level.
        sessions: The session of each turn.
        variance: Variance of the latent normal values, 0 to 1.
    """
    if own.size < 2:
        return 0.0
    is_same = sessions[1:] == sessions[:-1]
    return _correlation(own[:-1][is_same], own[1:][is_same], variance)


def correlations(columns: list[Numbers], variances: list[float]) -> tuple[tuple[float, ...], ...]:
    """Correlation of each pair of columns over complete rows; 0 where unknown. Pure.

    Args:
        columns: Scores less their session's level.
        variances: Variance of the latent normal values of each column, 0 to 1.
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
    """Variance between sessions, 0 where unknown, and within them.

    One-way analysis of variance with groups of unequal size.
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
