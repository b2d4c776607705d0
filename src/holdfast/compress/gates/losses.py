"""What gates are trained to do: the model's answers, within a capacity. Pure."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Scope", "capacity_loss", "distillation_loss", "next_token_loss"]

Scope = Literal["global", "local"]
"""Whether heads of all layers share one capacity, or each head has its own."""


def distillation_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of the gated model from the model itself, forward.

    Args:
        teacher: Logits of the model, (A, vocabulary).
        student: Logits of the model with gates, (A, vocabulary).

    Returns:
        Mean over A, a scalar (nats, at least 0).
    """
    return functional.kl_div(
        _wide(student).log_softmax(-1),
        _wide(teacher).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )


def next_token_loss(student: Tensor, answers: Tensor) -> Tensor:
    """-log p of right tokens under the gated model.

    Args:
        student: Logits, (A, vocabulary).
        answers: Token ids, (A,), int64.

    Returns:
        Mean over A, a scalar (nats, at least 0).
    """
    return functional.cross_entropy(_wide(student), answers)


def _wide(logits: Tensor) -> Tensor:
    """The logits in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def capacity_loss(counts: Tensor, capacity: float, scope: Scope) -> Tensor:
    """How far retained entries exceed a capacity, of what they could exceed it by.

    At the t-th token (from 1) a head that forgets nothing has t entries, so its excess over the
    capacity M is divided by t - M, at least 1. Under `global`, counts, M and t are those of all
    heads of all layers together. The mean is over tokens (and heads) with an excess.

    Source: TRIM-KV (`local`), DBTrimKV (`global`).

    Args:
        counts: Retained entries, (B, L, H, T).
        capacity: Entries a head M, or a head on average (above 0).
        scope: Who shares the capacity.

    Returns:
        A scalar (at least 0, about 1 where nothing is forgotten).
    """
    num_heads = 1
    if scope == "global":
        num_heads = counts.shape[1] * counts.shape[2]
        counts = counts.sum((1, 2))
    tokens = torch.arange(1, counts.shape[-1] + 1, device=counts.device)
    most = ((tokens - capacity) * num_heads).clamp_min(1)
    excess = (counts - capacity * num_heads).clamp_min(0) / most
    return excess.sum() / (excess > 0).sum().clamp_min(1)
