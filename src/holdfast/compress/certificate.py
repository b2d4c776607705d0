"""The smallest share of a cache whose loss is bounded with high probability."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["binomial_tail", "certified_share"]


def certified_share(
    losses: Sequence[tuple[float, Sequence[bool]]], *, largest_risk: float, error_rate: float
) -> float | None:
    """The smallest share whose risk is at most `largest_risk`, but for an error. Pure.

    Shares are tested from the largest on, and the first one that fails ends it, so that one
    `error_rate` holds for all of them together. The contexts must be like those to come, and
    independent of each other.

    Source: Learn then Test (arXiv 2110.01052), fixed-sequence testing with exact binomial tails.

    Args:
        losses: For each share (above 0, at most 1), whether each context lost something.
        largest_risk: Most contexts that may lose something, of all to come (0 to 1).
        error_rate: Probability that the answer is wrong (0 to 1).

    Returns:
        The share, or None where not even the largest passes. Below 29 contexts none can pass at
        0.1 and 0.05.
    """
    certified = None
    for share, lost in sorted(losses, key=lambda pair: pair[0], reverse=True):
        if binomial_tail(sum(lost), len(lost), largest_risk) > error_rate:
            break
        certified = share
    return certified


def binomial_tail(num_lost: int, num_contexts: int, risk: float) -> float:
    """Probability of at most `num_lost` losses, each at `risk` (0 to 1). Pure."""
    return math.fsum(
        math.comb(num_contexts, k) * risk**k * (1 - risk) ** (num_contexts - k)
        for k in range(num_lost + 1)
    )
