"""A model whose attention decays as its gates say, for training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from holdfast.compress.gates.attention_call import NAME, register
from holdfast.compress.gates.decay import decay_of, decayed_attention, retained_counts
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.model_hooks import inputs_of_attention, with_attention

__all__ = ["gated_logits"]


@dataclass(slots=True)
class _DecayedAttention:
    """Attention with decay in one call.

    Attributes:
        gates: The gates.
        decay: Of the layer that computes next, (B, H, T, T).
        counts: Retained entries of each layer so far, (B, H, T).
    """

    gates: RetentionGates
    decay: Tensor | None = None
    counts: list[Tensor] = field(default_factory=list)

    def take(self, layer: int, inputs: Tensor) -> None:
        self.decay = decay_of(self.gates.log_retention(layer, inputs))
        self.counts.append(retained_counts(self.decay))

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        assert self.decay is not None
        return decayed_attention(queries, keys, values, self.decay, scaling)


def gated_logits(
    model: Any, gates: RetentionGates, tokens: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits of a model with gates; differentiable in the gates.

    Args:
        model: A causal language model of transformers.
        gates: Gates of the model's shape.
        tokens: Token ids, (B, T), without padding.
        places: At which tokens to compute logits, (P,), int64 (0 to T - 1).

    Returns:
        Logits (B, P, vocabulary) of the tokens that follow, and retained entries (B, L, H, T).
    """
    register()
    call = _DecayedAttention(gates)
    with with_attention(model, NAME), inputs_of_attention(model, call.take):
        output = model(
            input_ids=tokens, use_cache=False, logits_to_keep=places, attention_call=call
        )
    return output.logits, torch.stack(call.counts, dim=1)
