"""What the last tokens of a prompt attend to. All functions are pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["pooled", "retained_mass", "window_attention"]


def window_attention(queries: Tensor, keys: Tensor, visible: Tensor, scaling: float) -> Tensor:
    """Attention weights of some queries over a head's keys, in float32.

    Source: SnapKV (arXiv 2404.14469), whose observation window these queries are.

    Args:
        queries: Rotated queries, (H, g, w, d).
        keys: Rotated keys, (H, n, d).
        visible: Which keys a query sees, (H, w, n), bool.
        scaling: Factor of the products.

    Returns:
        Weights, (H, g, w, n): 0 where a query does not see a key. A row adds up to 1, or to 0
        where its query sees no key.
    """
    products = queries.float() @ keys.float().transpose(-1, -2)[:, None] * scaling
    hidden = ~visible[:, None]
    weights = products.masked_fill(hidden, -math.inf).softmax(dim=-1)
    return weights.masked_fill(hidden, 0.0)


def pooled(weights: Tensor, kernel: int, *, keeps_mass: bool = False) -> Tensor:
    """Each weight averaged with its neighbours; beyond both ends weights count as 0.

    Args:
        weights: Any shape that ends with the keys, (..., n).
        kernel: Width in keys (odd, at least 1).
        keeps_mass: Whether a row is scaled to add up to what it did. Without that, rows lose mass
            at both ends. Source: DefensiveKV (arXiv 2510.13334).

    Returns:
        The shape of `weights`.
    """
    if weights.shape[-1] == 0 or kernel == 1:
        return weights
    rows = weights.reshape(-1, 1, weights.shape[-1])
    means = functional.avg_pool1d(rows, kernel, stride=1, padding=kernel // 2).reshape(
        weights.shape
    )
    if not keeps_mass:
        return means
    mass, means_mass = weights.sum(-1, keepdim=True), means.sum(-1, keepdim=True)
    smallest = torch.finfo(means.dtype).tiny
    return means * (mass / means_mass.clamp_min(smallest))


def retained_mass(weights: Tensor, keep: Tensor) -> Tensor:
    """The share of each KV head's attention that falls on kept entries.

    Args:
        weights: Attention of the queries that matter, (H, g, t, n); some of it positive.
        keep: Which entries stay, (H, n), bool.

    Returns:
        (H,), from 0 to 1.
    """
    mass = weights.sum(dim=(1, 2))
    return (mass * keep).sum(-1) / mass.sum(-1)
