"""Attention computed by an object that one call of a model carries."""

from __future__ import annotations

from typing import Any, Final, Protocol

from torch import Tensor

from holdfast.compress.attention_function import require_plain
from holdfast.errors import ConfigError

__all__ = ["NAME", "AttentionCall", "register"]

NAME: Final = "holdfast_compress_gates"


class AttentionCall(Protocol):
    """What computes attention in one call of a model."""

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Which (from 0).
            queries: Rotated, (B, query heads, q, d).
            keys: Rotated, (B, H, n + q, d), the new tokens' last.
            values: (B, H, n + q, d).
            scaling: Factor of the products of queries and keys.

        Returns:
            (B, query heads, q, d).
        """


def register() -> None:
    """Add the function to the registry of transformers. Mutates it, once."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attention_call: AttentionCall | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What the call makes of a layer, (B, q, query heads, d), and no weights."""
    if attention_call is None:
        raise ConfigError(f"cannot train gates for {type(module).__name__} layers")
    require_plain(others)
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended = attention_call.attend(module.layer_idx, query, key, value, factor)
    return attended.transpose(1, 2).contiguous(), None
