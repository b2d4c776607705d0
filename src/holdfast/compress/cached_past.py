"""The KV cache of one sequence, and which of its entries are left."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.compress.attention_function import LayerCapture
from holdfast.compress.cached_layer import CachedLayer
from holdfast.compress.supported import require_cache_by_head

__all__ = ["MAX_QUERIES", "CachedPast"]

MAX_QUERIES = 128
"""Newest tokens whose queries are kept; a method's window has no more queries than that."""


@dataclass(slots=True)
class CachedPast:
    """A cache of transformers, with what it does not know of its entries.

    L is the number of layers, H that of KV heads, n that of entries a head. Layers may differ in n.

    Attributes:
        cache: Keys and values.
        num_tokens: Tokens of the sequence, evicted ones included (count).
        positions: Positions of the entries' tokens, (H, n) a layer, int64.
        available: Which entries are not evicted, (H, n) a layer, bool; None where all are there.
        captures: Each layer's queries of the last tokens, once there are tokens.
        log_retention: What gates say of the entries, by their name, (H, n) a layer.
    """

    cache: Any
    num_tokens: int
    positions: list[Tensor]
    available: list[Tensor | None]
    captures: dict[int, LayerCapture]
    log_retention: list[dict[str, Tensor]]

    @classmethod
    def empty(cls, model: Any) -> CachedPast:
        """What a model has before its first token.

        Raises:
            ConfigError: The model's cache cannot be compacted head by head.
        """
        from transformers import DynamicCache

        require_cache_by_head(model.config)
        heads, num_layers = model.config.num_key_value_heads, model.config.num_hidden_layers
        nothing = torch.empty((heads, 0), dtype=torch.int64, device=model.device)
        return cls(
            DynamicCache(), 0, [nothing] * num_layers, [None] * num_layers, {}, [{}] * num_layers
        )

    @property
    def kv_bytes(self) -> int:
        """Memory of keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def fork(self) -> CachedPast:
        """A copy that shares tensors, which neither of the two writes to."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        return CachedPast(
            cache,
            self.num_tokens,
            [*self.positions],
            [*self.available],
            dict(self.captures),
            [*self.log_retention],
        )

    def layers(
        self, captures: Mapping[int, LayerCapture] | None = None, *, num_tokens: int | None = None
    ) -> list[CachedLayer]:
        """All layers as methods look at them; views.

        Args:
            captures: Whose queries to take; None for the last tokens of the sequence.
            num_tokens: Tokens up to the last query; None for all of the sequence.
        """
        shown = self.captures if captures is None else captures
        return [
            CachedLayer(
                index=index,
                queries=shown[index].queries,
                keys=self.cache.layers[index].keys[0, :, : positions.shape[1]],
                values=self.cache.layers[index].values[0, :, : positions.shape[1]],
                positions=positions,
                available=_all_true(positions) if available is None else available,
                output_weight=shown[index].output_weight,
                scaling=shown[index].scaling,
                num_tokens=self.num_tokens if num_tokens is None else num_tokens,
                log_retention=self.log_retention[index],
            )
            for index, (positions, available) in enumerate(
                zip(self.positions, self.available, strict=True)
            )
        ]

    def add_turn(self, num_tokens: int, captures: Mapping[int, LayerCapture]) -> None:
        """Note a turn whose keys and values the cache already has. Mutates.

        Args:
            num_tokens: Its tokens (count).
            captures: What each layer computed.
        """
        first, self.num_tokens = self.num_tokens, self.num_tokens + num_tokens
        for index, old in enumerate(self.positions):
            added = torch.arange(first, self.num_tokens, device=old.device)
            self.positions[index] = torch.cat([old, added.expand(old.shape[0], -1)], dim=1)
            available = self.available[index]
            if available is not None:
                self.available[index] = functional.pad(available, (0, num_tokens), value=True)
            self.captures[index] = _joined(self.captures.get(index), captures[index])
            told = self.log_retention[index]
            self.log_retention[index] = {
                name: torch.cat([told[name], new], dim=-1) if name in told else new
                for name, new in captures[index].log_retention.items()
            }

    def evict(self, index: int, kept: Tensor) -> None:
        """Leave some entries of a layer. Mutates.

        Where all heads keep the same number, the others' memory is free; else they are masked.

        Args:
            index: The layer.
            kept: Which entries stay, (H, n), bool.
        """
        counts = kept.sum(-1)
        if bool(kept.all()):
            self.available[index] = None
        elif bool((counts == counts[0]).all()):
            self._remove(index, kept.nonzero()[:, 1].view(kept.shape[0], -1))
        else:
            self.available[index] = kept

    def _remove(self, index: int, entries: Tensor) -> None:
        """Keep the entries (H, m) of a layer alone."""
        self.positions[index] = self.positions[index].gather(1, entries)
        self.available[index] = None
        self.log_retention[index] = {
            name: told.gather(1, entries) for name, told in self.log_retention[index].items()
        }
        layer = self.cache.layers[index]
        at = entries[None, :, :, None]
        layer.keys = layer.keys.gather(2, at.expand(-1, -1, -1, layer.keys.shape[-1]))
        layer.values = layer.values.gather(2, at.expand(-1, -1, -1, layer.values.shape[-1]))


def _all_true(positions: Tensor) -> Tensor:
    return torch.ones_like(positions, dtype=torch.bool)


def _joined(old: LayerCapture | None, new: LayerCapture) -> LayerCapture:
    """Notes with the last queries of both."""
    if old is None:
        return new
    queries = torch.cat([old.queries, new.queries], dim=2)[:, :, -MAX_QUERIES:]
    return LayerCapture(queries, new.output_weight, new.scaling)
