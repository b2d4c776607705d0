"""Attention for transformers in which each KV head has its own entries.

`register` adds the function to transformers under `NAME`. Its input and output in one call of a
model is a `ModelCall`, which the model passes on as a keyword argument. So models and attention
modules carry no state of ours. An evicted entry gets a weight of exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.errors import ConfigError

__all__ = ["NAME", "LayerCapture", "ModelCall", "register", "require_plain"]

NAME: Final = "holdfast_compress"

_UNSUPPORTED: Final = ("sliding_window", "softcap", "s_aux")
"""Arguments of models whose attention is more than causal softmax."""


@dataclass(frozen=True, slots=True)
class LayerCapture:
    """What an attention layer computed in one call.

    Attributes:
        queries: Rotated queries of the last tokens, (H, g, w, d).
        output_weight: The output projection by query head, (H, g, d, m), a view.
        scaling: Factor of the products of queries and keys.
        log_retention: What gates say of all tokens of the call, by their name, (H, q).
    """

    queries: Tensor
    output_weight: Tensor
    scaling: float
    log_retention: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, in and out.

    Attributes:
        available: For each layer, which entries that were cached before are not evicted, (H, n),
            bool; None where all are there.
        num_queries: Queries to capture, of the last tokens (count).
        captures: By layer; filled by the attention function.
        log_retention: By layer and name of gates, (H, q); filled before the attention function.
    """

    available: Sequence[Tensor | None]
    num_queries: int
    captures: dict[int, LayerCapture] = field(default_factory=dict)
    log_retention: dict[int, dict[str, Tensor]] = field(default_factory=dict)


def register() -> None:
    """Add the function to the registry of transformers. Mutates it, once."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


def require_plain(arguments: Mapping[str, Any]) -> None:
    """Check what a model passes to attention beyond what all models pass.

    Raises:
        ConfigError: The attention is more than a causal softmax.
    """
    for name in _UNSUPPORTED:
        if arguments.get(name) is not None:
            raise ConfigError(f"cannot compact a model whose attention has {name!r}")


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    model_call: ModelCall | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention over the entries that are available.

    Args:
        module: The attention layer, with `layer_idx` and `o_proj`.
        query: (1, query heads, q, d).
        key: (1, H, n + q, d), the new tokens' keys last.
        value: (1, H, n + q, d).
        attention_mask: Ignored: one sequence without padding needs none but the causal one.
        scaling: Factor of the products; None for 1 / sqrt(d).
        dropout: Ignored, as nothing trains.
        model_call: The call that this is part of.
        others: What else the model passes.

    Returns:
        (1, q, query heads, d), and no weights.

    Raises:
        ConfigError: The model's attention is of a kind that is not supported.
    """
    if model_call is None or not hasattr(module, "o_proj"):
        raise ConfigError(f"cannot compact the cache of {type(module).__name__} layers")
    require_plain(others)
    layer = module.layer_idx
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    num_heads = key.shape[1]
    last = query[0, :, -model_call.num_queries :].clone()  # frees the memory of the others
    model_call.captures[layer] = LayerCapture(
        last.unflatten(0, (num_heads, -1)),
        module.o_proj.weight.t().view(num_heads, -1, query.shape[-1], module.o_proj.out_features),
        factor,
        model_call.log_retention.get(layer, {}),
    )
    mask = _mask(model_call.available[layer], query, key)
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=False, scale=factor, enable_gqa=True
    )
    return attended.transpose(1, 2).contiguous(), None


def _mask(available: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """What queries see, (1, query heads or 1, q, n + q), bool; None for all."""
    num_new, num_all = query.shape[2], key.shape[2]
    if num_new == 1 and available is None:
        return None
    shape = (1, 1, num_new, num_all)
    causal = torch.ones(shape, dtype=torch.bool, device=query.device).tril(num_all - num_new)
    if available is None:
        return causal
    seen = functional.pad(available, (0, num_new), value=True)
    groups = query.shape[1] // key.shape[1]
    return causal & seen.repeat_interleave(groups, dim=0)[None, :, None]
