"""How heads and layers share a budget, and which entries stay.

All functions are pure. Scores are one tensor a layer, (H, n): a higher score stays, +inf stays
before all finite ones, and -inf is not there to stay. Of equal scores the newer entry stays, so
that results are the same on every machine, and a window of +inf loses its oldest entries first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["Allocation", "across_layers", "keep_top", "per_head", "per_layer", "safeguarded"]

Allocation = Callable[[Sequence[Tensor], int], list[Tensor]]
"""Scores a layer (H, n) and entries a head on average → entries of each head, (H,) a layer."""


def per_head(scores: Sequence[Tensor], num_kept: int) -> list[Tensor]:
    """The same number of entries for every head.

    Args:
        scores: Scores of each layer, (H, n).
        num_kept: Entries a head (at least 1).

    Returns:
        For each layer (H,), int64: `num_kept`, or all entries of a head that has fewer.
    """
    return [_available(layer).sum(-1).clamp_max(num_kept) for layer in scores]


def per_layer(scores: Sequence[Tensor], num_kept: int, *, safeguard: float = 0.0) -> list[Tensor]:
    """The same number of entries for every layer; its heads compete for them.

    Source: AdaKV (arXiv 2407.11550).

    Args:
        scores: Scores of each layer, (H, n).
        num_kept: Entries a head on average (at least 1).
        safeguard: Share of `num_kept` that each head has in any case (0 to 1).

    Returns:
        For each layer (H,), int64; adds up to H times `num_kept`, or to all that there are.
    """
    return [
        _won([safeguarded(layer, num_kept, safeguard)], num_kept * layer.shape[0])[0]
        for layer in scores
    ]


def across_layers(scores: Sequence[Tensor], num_kept: int) -> list[Tensor]:
    """All heads of all layers compete for the entries.

    Scores of different layers must be comparable. Source: Layer-DefensiveKV (arXiv 2510.13334).

    Args:
        scores: Scores of each layer, (H, n); n may differ.
        num_kept: Entries a head on average (at least 1).

    Returns:
        For each layer (H,), int64; adds up to `num_kept` for each head, or to all that there are.
    """
    return _won(scores, num_kept * sum(layer.shape[0] for layer in scores))


def keep_top(scores: Tensor, num_kept: Tensor) -> Tensor:
    """The best entries of each head.

    Args:
        scores: Scores, (H, n).
        num_kept: Entries of each head, (H,), int64 (at least 0).

    Returns:
        (H, n), bool; a head with fewer available entries keeps these.
    """
    # Reversed, a stable sort has the newest of equal scores first.
    order = scores.flip(-1).argsort(dim=-1, descending=True, stable=True)
    ranks = order.argsort(dim=-1).flip(-1)
    return (ranks < num_kept[:, None]) & _available(scores)


def safeguarded(scores: Tensor, num_kept: int, share: float) -> Tensor:
    """Scores with the best entries of each head at +inf.

    Args:
        scores: Scores, (H, n).
        num_kept: Entries a head on average (at least 1).
        share: Of `num_kept`, rounded down to one entry at least; 0 for none (0 to 1).

    Returns:
        (H, n).
    """
    num_safe = max(1, int(num_kept * share)) if share > 0 else 0
    counts = torch.full((scores.shape[0],), num_safe, device=scores.device)
    return scores.masked_fill(keep_top(scores, counts), math.inf)


def _won(scores: Sequence[Tensor], num_kept: int) -> list[Tensor]:
    """How many of the best entries each head has, (H,) a layer."""
    flat = torch.cat([layer.flatten() for layer in scores])
    ages = torch.cat([_ages(layer).flatten() for layer in scores])
    by_age = ages.argsort(stable=True)
    best = by_age[flat[by_age].argsort(descending=True, stable=True)[:num_kept]]
    won = torch.zeros_like(flat, dtype=torch.bool)
    won[best] = True
    won &= _available(flat)
    sizes = [layer.numel() for layer in scores]
    return [
        part.view(layer.shape).sum(-1) for part, layer in zip(won.split(sizes), scores, strict=True)
    ]


def _ages(scores: Tensor) -> Tensor:
    """How many entries of its head are newer than each, (H, n)."""
    num_entries = scores.shape[-1]
    return torch.arange(num_entries - 1, -1, -1, device=scores.device).expand(scores.shape)


def _available(scores: Tensor) -> Tensor:
    return scores > -math.inf
