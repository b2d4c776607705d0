"""Sequences whose entries are evicted while they go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.compress.gates.attention_call import NAME, register
from holdfast.compress.gates.gate import RetentionGates
from holdfast.compress.gates.retention import RetentionRule, retention_scores
from holdfast.compress.model_hooks import inputs_of_attention, with_attention
from holdfast.errors import ConfigError

__all__ = ["RetentionStream"]


@dataclass(slots=True)
class _Entries:
    """What transformers does not know of a layer's entries, each (B, H, n).

    A head with fewer entries than another has places without one, before its own.
    """

    positions: Tensor
    available: Tensor
    log_retention: Tensor


@dataclass(slots=True)
class _StreamAttention:
    """Attention of one call to entries that are still there, and to new tokens.

    Attributes:
        gates: The gates.
        entries: Of each layer, from before the call.
        new: Which of the new tokens are no padding, (B, q), bool.
        log_retention: Of the new tokens, (B, H, q) by layer.
    """

    gates: RetentionGates
    entries: Sequence[_Entries]
    new: Tensor
    log_retention: dict[int, Tensor]

    def take(self, layer: int, inputs: Tensor) -> None:
        self.log_retention[layer] = self.gates.log_retention(layer, inputs)

    def attend(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        num_new, device = self.new.shape[1], queries.device
        earlier = torch.ones(num_new, num_new, dtype=torch.bool, device=device).tril()
        # Padding sees itself, so that its values are numbers; no one else sees it.
        itself = torch.eye(num_new, dtype=torch.bool, device=device)
        among_new = (earlier & self.new[:, None, :]) | itself
        available = self.entries[layer].available
        shape = (*available.shape[:2], num_new, -1)
        seen = torch.cat(
            [available[:, :, None].expand(shape), among_new[:, None].expand(shape)], dim=-1
        )
        groups = queries.shape[1] // keys.shape[1]
        return functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=seen.repeat_interleave(groups, dim=1),
            scale=scaling,
            enable_gqa=True,
        )


class RetentionStream:
    """A batch of sequences of one model, each with a capacity of its own.

    After each chunk of tokens the entries that a rule does not keep leave the cache. Tokens have
    the positions of the whole sequence, so rotary embeddings stay exact. Gates choose what stays;
    they do not change attention to it.

    Heads may keep different numbers of entries. A layer's memory is that of its longest head.
    """

    def __init__(
        self, model: Any, gates: RetentionGates, rule: RetentionRule, *, batch_size: int = 1
    ) -> None:
        """Start sequences without tokens.

        Args:
            model: A causal language model of transformers.
            gates: Gates of its shape.
            rule: What stays.
            batch_size: Sequences B (at least 1).
        """
        from transformers import DynamicCache

        self._model, self._gates, self._rule = model, gates, rule
        self._cache = DynamicCache()
        shape = (batch_size, gates.shape.num_heads, 0)
        self._entries = [
            _Entries(
                torch.empty(shape, dtype=torch.int64, device=model.device),
                torch.empty(shape, dtype=torch.bool, device=model.device),
                torch.empty(shape, device=model.device),
            )
            for _ in range(gates.shape.num_layers)
        ]
        self.num_tokens = torch.zeros(batch_size, dtype=torch.int64, device=model.device)

    @property
    def kv_bytes(self) -> int:
        """Memory of keys and values, places without an entry included."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._cache.layers)

    def num_entries(self) -> Tensor:
        """Entries in the cache, (B, L, H), int64."""
        return torch.stack([entries.available.sum(-1) for entries in self._entries], dim=1)

    def append(
        self, tokens: Tensor, *, padding: Tensor | None = None, num_logits: int | None = None
    ) -> Tensor:
        """Go on with a chunk of tokens, then evict. Mutates the sequences.

        Args:
            tokens: Token ids, (B, q), int64.
            padding: Which of them are none, (B, q), bool, at a row's start; None for no padding.
            num_logits: For how many of the last tokens to compute logits; all if None.

        Returns:
            Logits (B, num_logits, vocabulary) of the tokens that follow, float32. Those at
            padding mean nothing.

        Raises:
            ConfigError: The tokens are not of this number of sequences, or there are none.
        """
        if tokens.dim() != 2 or tokens.shape[0] != len(self.num_tokens) or not tokens.shape[1]:
            raise ConfigError(
                f"tokens have the shape {tuple(tokens.shape)}, expected ({len(self.num_tokens)}, q)"
            )
        new = torch.ones_like(tokens, dtype=torch.bool) if padding is None else ~padding
        positions = (self.num_tokens[:, None] + new.cumsum(1) - 1).clamp_min(0)
        call = _StreamAttention(self._gates, self._entries, new, {})
        register()
        with (
            torch.no_grad(),
            with_attention(self._model, NAME),
            inputs_of_attention(self._model, call.take),
        ):
            output = self._model(
                input_ids=tokens,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=0 if num_logits is None else num_logits,
                attention_call=call,
            )
        self.num_tokens = self.num_tokens + new.sum(1)
        for layer, entries in enumerate(self._entries):
            _add(entries, positions, new, call.log_retention[layer])
        self._evict()
        logits: Tensor = output.logits.float()
        return logits

    def _evict(self) -> None:
        """Leave in each sequence what the rule keeps."""
        scores = [
            retention_scores(
                entries.log_retention,
                entries.positions,
                self.num_tokens[:, None, None],
                lookahead=self._rule.lookahead,
            ).masked_fill(~entries.available, -math.inf)
            for entries in self._entries
        ]
        kept = [entries.available.clone() for entries in self._entries]
        for sequence in range(len(self.num_tokens)):
            own = [layer[sequence] for layer in scores]
            if self._rule.is_due(own):
                for layer, keep in enumerate(self._rule.keep(own)):
                    kept[layer][sequence] = keep
        for layer, keep in enumerate(kept):
            self._leave(layer, keep)

    def _leave(self, layer: int, keep: Tensor) -> None:
        """Keep entries (B, H, n) of a layer, in order, in as few places as hold them."""
        width = int(keep.sum(-1).max())
        if width == keep.shape[-1]:
            self._entries[layer].available = keep
            return
        at = keep.int().argsort(dim=-1, stable=True)[..., keep.shape[-1] - width :]
        old, cached = self._entries[layer], self._cache.layers[layer]
        self._entries[layer] = _Entries(
            old.positions.gather(-1, at), keep.gather(-1, at), old.log_retention.gather(-1, at)
        )
        rows = at[..., None].expand(*at.shape, cached.keys.shape[-1])
        cached.keys = cached.keys.gather(2, rows)
        cached.values = cached.values.gather(2, rows)


def _add(entries: _Entries, positions: Tensor, new: Tensor, log_retention: Tensor) -> None:
    """Note new tokens' entries. Mutates."""
    shape = log_retention.shape
    entries.positions = torch.cat([entries.positions, positions[:, None].expand(shape)], dim=-1)
    entries.available = torch.cat([entries.available, new[:, None].expand(shape)], dim=-1)
    entries.log_retention = torch.cat([entries.log_retention, log_retention], dim=-1)
