"""How much each entry of a layer is needed. All functions are pure.

A score is a function of a layer and a budget. It gives (H, n), float32: entries with higher scores
stay, +inf is for those that always do. What is no longer in the cache needs no special score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.compress.attention import pooled, window_attention
from holdfast.compress.budget import Budget
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.coverage import num_covering
from holdfast.compress.gates.retention import retention_scores, with_best
from holdfast.compress.selection import keep_top
from holdfast.compress.settings import Settings
from holdfast.compress.value_norms import normalized, value_norms
from holdfast.errors import ConfigError

__all__ = [
    "Score",
    "defensive",
    "key_difference",
    "key_norm",
    "recency",
    "retained",
    "snap",
    "uniform_random",
]

_MOST_LAYERS = 10_000

Score = Callable[[CachedLayer, Budget, Settings], Tensor]
"""Scores (H, n) of a layer's entries, at a budget and with a method's settings."""


def snap(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """The window's mean attention, pooled; the window itself stays.

    Source: SnapKV (arXiv 2404.14469), as kvpress has it for grouped queries.
    """
    weights = _attention_before_window(layer, settings)
    return _with_window(pooled(weights.mean(dim=(1, 2)), settings.kernel), layer, math.inf)


def defensive(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """The worst case of the window's attention, times what the value can change.

    Attention is pooled row by row, then its maximum over queries and query heads is raised to the
    head's mean at least, since an entry that this window does not need may be needed later. Then
    come norms of values, and the entries that cover most of the attention get the layer's maximum.

    Source: DefensiveKV (arXiv 2510.13334) and its code. Differs: the window is at +inf, not at the
    layer's maximum, where entries that tie with it can evict it; `coverage.num_covering` has one
    more difference. `as_published` undoes both.
    """
    weights = _attention_before_window(layer, settings)
    if weights.shape[-1] == 0:
        return _with_window(weights.mean(dim=(1, 2)), layer, math.inf)
    rows = pooled(weights, settings.kernel, keeps_mass=True)
    scores = rows.amax(dim=(1, 2)) if settings.aggregate == "max" else rows.mean(dim=(1, 2))
    if settings.floor:
        scores = scores.maximum(scores.mean(-1, keepdim=True))
    norms = value_norms(layer.values[:, : scores.shape[-1]], layer.output_weight)
    scores = scores * normalized(norms, settings.normalization)
    top = scores.max()
    if settings.coverage > 0:
        covering = keep_top(weights.mean(dim=(1, 2)), num_covering(weights, budget, settings))
        scores = scores.masked_fill(covering, top)
    return _with_window(scores, layer, float(top) if settings.as_published else math.inf)


def recency(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """The newest entries, after the first few of the sequence.

    Source: StreamingLLM (arXiv 2309.17453).
    """
    sinks = layer.positions < settings.num_sinks
    return layer.positions.float().masked_fill(sinks, math.inf)


def key_norm(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """Small keys first.

    Source: "A simple and effective L2 norm-based strategy" (arXiv 2406.11430).
    """
    return -layer.keys.float().norm(dim=-1)


def key_difference(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """Keys first that point away from the head's mean direction.

    Source: KeyDiff (arXiv 2504.15364).
    """
    directions = functional.normalize(layer.keys.float(), dim=-1)
    present = layer.available[..., None]
    mean = (directions * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
    return -functional.cosine_similarity(directions, mean, dim=-1)


def retained(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """What trained gates say will be left of each entry, in logarithms.

    Source: TRIM-KV and DBTrimKV, see `gates.retention`.

    Raises:
        ConfigError: The gates have not looked at the layer.
    """
    if settings.gates not in layer.log_retention:
        raise ConfigError(
            f"no gates {settings.gates!r} in this session" if settings.gates else "no gates given",
            hint="rg:gates=PATH; `holdfast compress train` makes the file",
        )
    scores = retention_scores(
        layer.log_retention[settings.gates],
        layer.positions,
        layer.num_tokens,
        lookahead=settings.lookahead,
    )
    return with_best(
        scores.masked_fill(~layer.available, -math.inf), min(settings.min_entries, budget.per_head)
    )


def uniform_random(layer: CachedLayer, budget: Budget, settings: Settings) -> Tensor:
    """Any entries, by seed and layer: the floor of a comparison."""
    generator = torch.Generator().manual_seed(settings.seed * _MOST_LAYERS + layer.index)
    return torch.rand(layer.positions.shape, generator=generator).to(layer.keys.device)


def _attention_before_window(layer: CachedLayer, settings: Settings) -> Tensor:
    """The window's attention to earlier entries, (H, g, w, n - w)."""
    queries = layer.last_queries(settings.window)
    num_queries = queries.shape[2]
    weights = window_attention(queries, layer.keys, layer.visible(num_queries), layer.scaling)
    return weights[..., : max(0, layer.num_entries - settings.window)]


def _with_window(scores: Tensor, layer: CachedLayer, value: float) -> Tensor:
    """Scores of the entries before the window, and one value for those in it, (H, n)."""
    return functional.pad(scores, (0, layer.num_entries - scores.shape[-1]), value=value)
