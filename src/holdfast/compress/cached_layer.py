"""One layer of a KV cache, as methods look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["CachedLayer"]


@dataclass(frozen=True, slots=True)
class CachedLayer:
    """Entries of one sequence in one layer, with the queries of its last tokens.

    H is the number of KV heads, g that of query heads a KV head, d the head size, n the number of
    entries a KV head, w that of queries, m the hidden size. Entries stand in the order of their
    positions, and the n-th of each head is the newest. Queries and keys are rotated.

    Attributes:
        index: Which layer (from 0).
        queries: Queries of the last w tokens, (H, g, w, d).
        keys: Keys, (H, n, d).
        values: Values, (H, n, d).
        positions: Positions of the entries' tokens in the sequence, (H, n), int64.
        available: Whether an entry is in the cache, not evicted earlier, (H, n), bool.
        output_weight: The output projection by query head, (H, g, d, m): a head's value v adds
            v @ output_weight to the hidden state.
        scaling: Factor of the products of queries and keys.
        num_tokens: Tokens that the sequence has had; the last query is at `num_tokens` - 1.
        log_retention: What gates say of the entries, by their name, (H, n), float32.
    """

    index: int
    queries: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor
    available: Tensor
    output_weight: Tensor
    scaling: float
    num_tokens: int
    log_retention: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_entries(self) -> int:
        """Entries a KV head, evicted ones that still take memory included."""
        return int(self.keys.shape[1])

    def last_queries(self, window: int) -> Tensor:
        """Queries of at most the last `window` tokens, (H, g, w, d). Pure."""
        return self.queries[:, :, -window:]

    def visible(self, num_queries: int) -> Tensor:
        """Which entries each of the last queries sees, (H, w, n), bool. Pure."""
        last = self.num_tokens
        queries = torch.arange(last - num_queries, last, device=self.positions.device)
        earlier = self.positions[:, None, :] <= queries[None, :, None]
        return earlier & self.available[:, None, :]
