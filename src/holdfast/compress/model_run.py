"""Calls of a transformers model with a compacted cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.compress.attention_function import NAME, LayerCapture, ModelCall, register
from holdfast.compress.cached_past import MAX_QUERIES, CachedPast
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.model_hooks import inputs_of_attention, with_attention
from holdfast.errors import ConfigError

__all__ = ["run_model"]


def run_model(
    model: Any,
    past: CachedPast,
    tokens: Sequence[int],
    num_logits: int,
    gates: Mapping[str, RetentionGates],
) -> tuple[Tensor, dict[int, LayerCapture]]:
    """Compute tokens after a past. Mutates its cache.

    The cache then has the tokens' keys and values, and `past` does not yet know of them.

    The model's attention function is ours during the call, and its own again afterwards.

    Args:
        model: A causal language model of transformers.
        past: What was before; its number of tokens is the position of the first new one.
        tokens: Token ids (at least one).
        num_logits: For how many of the last tokens to compute logits.
        gates: Gates that look at the tokens, by name.

    Returns:
        Logits (num_logits, vocabulary), float32, and what each layer computed.

    Raises:
        ConfigError: There are no tokens, or the model's attention is of an unsupported kind.
    """
    if not tokens:
        raise ConfigError("a turn has no tokens")
    register()
    ids = torch.tensor([list(tokens)], device=model.device)
    positions = torch.arange(past.num_tokens, past.num_tokens + len(tokens), device=model.device)
    call = ModelCall(past.available, MAX_QUERIES)

    def take(layer: int, inputs: Tensor) -> None:
        call.log_retention[layer] = {
            name: own.log_retention(layer, inputs)[0] for name, own in gates.items()
        }

    with torch.no_grad(), with_attention(model, NAME), inputs_of_attention(model, take):
        output = model(
            input_ids=ids,
            position_ids=positions[None],
            past_key_values=past.cache,
            use_cache=True,
            logits_to_keep=num_logits,
            model_call=call,
        )
    return output.logits[0].float(), call.captures
