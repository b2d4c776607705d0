"""Gates of tiny models, and attention with a mask that is written down."""

from __future__ import annotations

from typing import Any

import torch
from tests.compress.layers import tokens
from torch import Tensor

from holdfast.compress.gates.attention_call import NAME, register
from holdfast.compress.gates.batch import NO_LABEL, Batch
from holdfast.compress.gates.gate import RetentionGates, shape_for
from holdfast.compress.model_hooks import with_attention


def gates_for(model: Any, kind: str = "rg10", *, seed: int = 3) -> RetentionGates:
    """Gates with retentions from about 0.6 to 0.99, unlike each other."""
    shape = shape_for(model.config, kind, hidden_size=8, initial_bias=2.0)
    gates = RetentionGates(shape, seed=seed)
    with torch.no_grad():
        for parameter in gates.outputs.parameters():
            if parameter.dim() == 2:
                parameter *= 400
        for parameter in gates.hidden.parameters():
            parameter *= 10
    gates.eval().requires_grad_(False)
    return gates


def batch_of(seed: int, *, sequences: int = 2, length: int = 24) -> Batch:
    """Random tokens, of which the second half is to be predicted."""
    ids = torch.tensor([tokens(100 * seed + i, length) for i in range(sequences)])
    labels = ids.clone()
    labels[:, : length // 2] = NO_LABEL
    return Batch(ids, labels)


class MaskedAttention:
    """Attention of a whole sequence with a mask of its own for each KV head."""

    def __init__(self, masks: list[Tensor]) -> None:
        """Masks of each layer, (B, H, T, T), bool."""
        self.masks = masks

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        groups = queries.shape[1] // keys.shape[1]
        hidden = ~self.masks[layer].repeat_interleave(groups, dim=1)
        products = queries @ keys.repeat_interleave(groups, dim=1).transpose(-1, -2) * scaling
        weights = products.masked_fill(hidden, float("-inf")).softmax(-1)
        return weights @ values.repeat_interleave(groups, dim=1)


def masked_logits(model: Any, ids: Tensor, masks: list[Tensor]) -> Tensor:
    """Logits (B, T, vocabulary) of a model without a cache, under masks."""
    register()
    with torch.no_grad(), with_attention(model, NAME):
        output = model(input_ids=ids, use_cache=False, attention_call=MaskedAttention(masks))
    logits: Tensor = output.logits
    return logits
