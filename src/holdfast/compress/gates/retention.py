"""Which entries stay, by what their gates say. All functions are pure.

H is the number of KV heads of a layer, n that of a head's entries, L that of layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.compress.selection import across_layers, keep_top
from holdfast.errors import ConfigError

__all__ = ["RetentionRule", "retention_scores", "with_best"]


def retention_scores(
    log_retention: Tensor, positions: Tensor, num_tokens: Tensor | int, *, lookahead: int = 1
) -> Tensor:
    """The logarithm of what will be left of each entry, in float32.

    Of an entry at position i after t tokens, the next one finds β^(t + 1 - i) left. With a
    look-ahead of n > 1 the score is a sum over n steps, β^a + … + β^(a + n - 1) with a = t + 2 - i.

    Source: DBTrimKV's code, in which the sum starts one step later than the single term does.

    Args:
        log_retention: log β, below 0, (…, n).
        positions: Of the entries' tokens, (…, n), int64.
        num_tokens: Tokens so far t, evicted ones included; a number, or (…, 1).
        lookahead: Steps n (at least 1).

    Returns:
        (…, n), float32: the newest entry of equal retention scores highest.
    """
    log_retention = log_retention.float()
    ages = num_tokens + 1 - positions
    if lookahead == 1:
        return ages * log_retention
    several = _log_of_one_minus_exp(lookahead * log_retention)
    return (ages + 1) * log_retention + several - _log_of_one_minus_exp(log_retention)


def _log_of_one_minus_exp(negative: Tensor) -> Tensor:
    """log(1 - exp(x)) of x below 0, exact at both ends."""
    return torch.where(
        negative > -math.log(2),
        (-torch.expm1(negative)).log(),
        torch.log1p(-negative.exp()),
    )


def with_best(scores: Tensor, num_best: int) -> Tensor:
    """Scores (H, n) with the best entries of each head at +inf.

    Args:
        scores: Scores, -inf where nothing is there to stay, (H, n).
        num_best: Entries of each head (at least 0).
    """
    counts = torch.full((scores.shape[0],), num_best, device=scores.device)
    return scores.masked_fill(keep_top(scores, counts), math.inf)


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """When entries are evicted and which of them stay, for one sequence.

    Entries of all layers and heads compete in one ranking, whatever their tokens are: text and
    images of a sequence share its capacity.

    Source: DBTrimKV. Differs: entries that `min_entries` gives a head count before heads compete,
    not after, so that the capacity is met exactly.

    Attributes:
        capacity: Entries that stay a head on average M (at least 1); None for a threshold alone.
        threshold: Entries stay whose score, what will be left of them, is at least this (0 to 1);
            None for a capacity alone.
        lookahead: Steps that scores look ahead (at least 1).
        min_entries: The best entries of each head that stay in any case (count, at most M).
        slack: Entries a head on average beyond M before any is evicted (count).

    Raises:
        ConfigError: A value is out of range, or neither capacity nor threshold is given.
    """

    capacity: int | None = None
    threshold: float | None = None
    lookahead: int = 1
    min_entries: int = 0
    slack: int = 0

    def __post_init__(self) -> None:
        for name, least in (("capacity", 1), ("lookahead", 1), ("min_entries", 0), ("slack", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}, expected at least {least}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold:g}, expected above 0, at most 1")
        if self.capacity is None and self.threshold is None:
            raise ConfigError("a retention rule needs a capacity or a threshold")
        if self.capacity is not None and self.min_entries > self.capacity:
            raise ConfigError(
                f"min_entries is {self.min_entries}, expected at most the capacity, {self.capacity}"
            )

    def is_due(self, scores: Sequence[Tensor]) -> bool:
        """Whether to evict now.

        Args:
            scores: Scores of each layer, (H, n); -inf is not there to stay.
        """
        if self.threshold is not None or self.capacity is None:
            return True
        num_there = sum(int((layer > -math.inf).sum()) for layer in scores)
        num_heads = sum(layer.shape[0] for layer in scores)
        return bool(num_there >= num_heads * (self.capacity + self.slack))

    def keep(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Which entries stay.

        Args:
            scores: Scores of each layer, (H, n); -inf is not there to stay.

        Returns:
            For each layer (H, n), bool: L · H · `capacity` entries, or fewer where there are fewer
            or the threshold leaves fewer.
        """
        ranked = [with_best(layer, self.min_entries) for layer in scores]
        if self.threshold is not None:
            lowest = math.log(self.threshold)
            ranked = [layer.masked_fill(layer < lowest, -math.inf) for layer in ranked]
        if self.capacity is None:
            return [layer > -math.inf for layer in ranked]
        counts = across_layers(ranked, self.capacity)
        return [keep_top(layer, count) for layer, count in zip(ranked, counts, strict=True)]
