"""Attention whose weights decay with age, so that gates can be trained. Pure.

T is the number of tokens of a sequence, B that of sequences, H that of KV heads, g that of query
heads a KV head, d the head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["decay_of", "decayed_attention", "retained_counts"]


def decay_of(log_retention: Tensor) -> Tensor:
    """The logarithm of what is left of each entry: age times log retention.

    Args:
        log_retention: Of each entry, (B, H, T), at most 0.

    Returns:
        (B, H, T, T): at token t of entry i, (t - i) log_retention[i]; -inf for later entries.
    """
    places = torch.arange(log_retention.shape[-1], device=log_retention.device)
    ages = places[:, None] - places
    return (ages * log_retention[..., None, :]).masked_fill(ages < 0, -math.inf)


def decayed_attention(
    queries: Tensor, keys: Tensor, values: Tensor, decay: Tensor, scaling: float
) -> Tensor:
    """Causal attention with the decay added to products of queries and keys.

    Source: DBTrimKV, whose fused kernel adds it.

    Args:
        queries: Rotated, (B, H g, T, d).
        keys: Rotated, (B, H, T, d).
        values: (B, H, T, d).
        decay: (B, H, T, T), -inf for later entries.
        scaling: Factor of the products.

    Returns:
        (B, H g, T, d), in the type of the values.
    """
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    wide = torch.promote_types(queries.dtype, torch.float32)
    products = (grouped.to(wide) @ keys.to(wide).transpose(-1, -2)[:, :, None]) * scaling
    weights = (products + decay[:, :, None]).softmax(-1)
    return (weights.to(values.dtype) @ values[:, :, None]).flatten(1, 2)


def retained_counts(decay: Tensor) -> Tensor:
    """Entries left in effect at each token: the sum of what is left of each.

    Args:
        decay: (B, H, T, T), -inf for later entries.

    Returns:
        (B, H, T): at least 1, since a token is whole at its own place, and at most t.
    """
    return decay.exp().sum(-1)
