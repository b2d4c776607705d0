"""Where a backend keeps each key and value within a KV block.

A backend may pack a block for its kernels; on a CPU the order depends on the instruction set.
So the order is learned from what the backend writes, not known beforehand.

Process: worker. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from holdfast.errors import EngineError

__all__ = ["BlockReader", "PageLayout", "StoredPage", "StoredPages"]

_BASE: Final = 256  # whole numbers below are exact in float16 and bfloat16


class BlockReader(Protocol):
    """Reads keys and values of one layer, wherever its blocks are; see `PageLayout`."""

    @property
    def block_tokens(self) -> int:
        """Tokens in a block (count)."""

    @property
    def num_heads(self) -> int:
        """KV heads (count)."""

    @property
    def bytes_per_token(self) -> int:
        """Memory of a token's key and value, of all heads."""

    def read(self, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of whole blocks, (H, n, d) each, copied; pure."""


@dataclass(frozen=True, slots=True)
class StoredPage:
    """Where one layer's keys and values are in a chunk of one block.

    Attributes:
        shape: Keys or values, heads, tokens, head size: (2, H, block_tokens, d).
        dtype: Of keys and values.
        first_byte: Of the layer in the chunk.
        order: For each key and value its place in the layer's bytes, (2·H·block_tokens·d,), int64.
    """

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    first_byte: int
    order: Tensor


class StoredPages:
    """Reads one layer out of chunks that were copied from a tier.

    Args:
        page: Where the layer is in a chunk.
        chunks: The chunks' bytes, (num_chunks, chunk_bytes), uint8.
    """

    def __init__(self, page: StoredPage, chunks: Tensor) -> None:
        self._page = page
        self._chunks = chunks
        _, self.num_heads, self.block_tokens, _ = page.shape

    @property
    def bytes_per_token(self) -> int:
        """Memory of a token's key and value, of all heads."""
        num_bytes: int = math.prod(self._page.shape) * self._page.dtype.itemsize
        return num_bytes // self.block_tokens

    def read(self, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of chunks; see `PageLayout.read`. Pure."""
        page = self._page
        end = page.first_byte + self.bytes_per_token * self.block_tokens
        layer = self._chunks[list(block_ids), page.first_byte : end].contiguous()
        keys, values = (
            layer.view(page.dtype)[:, page.order].view(len(block_ids), *page.shape).unbind(1)
        )
        return _joined(keys), _joined(values)


class PageLayout:
    """Reads and writes tokens of one attention layer's KV blocks.

    H is the number of KV heads, d the head size, n a number of tokens.

    Args:
        layer: vLLM's attention layer.
        cache: Its KV cache; blocks are its first dimension.
        spec: vLLM's `FullAttentionSpec` of the layer.

    Attributes:
        block_tokens: Tokens in a block (count).
        num_heads: KV heads (count).

    Raises:
        EngineError: The backend does not keep keys and values as they are, each at one place.
    """

    def __init__(self, layer: Any, cache: Tensor, spec: Any) -> None:
        self._layer = layer
        self._cache = cache
        self.block_tokens: int = spec.block_size
        self.num_heads: int = spec.num_kv_heads
        self._shape = (2, self.num_heads, self.block_tokens, int(spec.head_size))
        num_values = math.prod(self._shape)
        if cache[0].numel() != num_values or not cache.is_floating_point():
            raise self._refusal(f"a block is {tuple(cache.shape[1:])} of {cache.dtype}")
        self._order = self._learned(num_values).to(cache.device)
        self._check()

    @property
    def bytes_per_token(self) -> int:
        """Memory of a token's key and value, of all heads."""
        return int(self._cache[0].nbytes) // self.block_tokens

    def read(self, block_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of whole blocks; pure.

        Args:
            block_ids: Blocks in the order of their tokens.

        Returns:
            Keys and values, (H, n, d) each, copied.
        """
        ids = torch.tensor(list(block_ids), device=self._cache.device)
        blocks = self._cache[ids].reshape(len(ids), -1)[:, self._order]
        keys, values = blocks.view(len(ids), *self._shape).unbind(1)
        return _joined(keys), _joined(values)

    def write(self, keys: Tensor, values: Tensor, block_ids: Sequence[int], first: int) -> None:
        """Put tokens into blocks, through the backend. Mutates the KV cache.

        Args:
            keys: Keys from the sequence's beginning, (H, n, d).
            values: Values, (H, n, d).
            block_ids: Blocks from the sequence's beginning.
            first: Tokens before this one are left out (0 to n).
        """
        self._put(self._cache, keys[:, first:], values[:, first:], block_ids, first)

    def stored(self, first_byte: int, page_bytes: int) -> StoredPage:
        """Where the layer's keys and values are in a chunk of a tier; pure.

        A tier copies a block's memory, in which a cache's dimensions may have another order.

        Args:
            first_byte: Of the layer in the chunk.
            page_bytes: Of the layer in the chunk.

        Raises:
            EngineError: A block's memory has anything beside the layer's keys and values.
        """
        block = self._cache[0]
        place = torch.zeros(block.shape, dtype=torch.int64)
        for dimension, (size, stride) in enumerate(zip(block.shape, block.stride(), strict=True)):
            steps = torch.arange(size) * stride
            place += steps.view([-1 if one == dimension else 1 for one in range(block.dim())])
        offsets = place.flatten()
        is_dense = torch.equal(offsets.sort().values, torch.arange(len(offsets)))
        stride_bytes = self._cache.stride(0) * block.itemsize
        if not is_dense or not block.nbytes == page_bytes == stride_bytes:
            raise self._refusal("its KV blocks have other memory between, which tiers copy as well")
        return StoredPage(self._shape, block.dtype, first_byte, offsets[self._order.cpu()])

    def _put(
        self, cache: Tensor, keys: Tensor, values: Tensor, block_ids: Sequence[int], first: int
    ) -> None:
        size = self.block_tokens
        tokens = range(first, first + keys.shape[1])
        slots = [block_ids[token // size] * size + token % size for token in tokens]
        self._layer.impl.do_kv_cache_update(
            self._layer,
            keys.transpose(0, 1).contiguous().to(cache.device),
            values.transpose(0, 1).contiguous().to(cache.device),
            cache,
            torch.tensor(slots, device=cache.device),
        )

    def _learned(self, num_values: int) -> Tensor:
        """For each key and value its place in a block, (2·H·block_tokens·d,), int64."""
        numbers = torch.arange(num_values).view(self._shape)
        found = torch.zeros(num_values, dtype=torch.int64)
        factor = 1
        while factor < num_values:
            scratch = torch.zeros_like(self._cache[:1], memory_format=torch.contiguous_format)
            keys, values = (numbers // factor % _BASE).to(self._cache)
            self._put(scratch, keys, values, [0], 0)
            found += scratch.flatten().double().round().long().cpu() * factor
            factor *= _BASE
        order = torch.full((num_values,), -1)
        if bool(((found >= 0) & (found < num_values)).all()):
            order[found] = torch.arange(num_values)
        if bool((order < 0).any()):
            raise self._refusal("its KV blocks have not each key and value at a place of its own")
        return order

    def _check(self) -> None:
        """Read what was written to vLLM's own padding block."""
        generator = torch.Generator().manual_seed(0)
        keys, values = torch.randn(self._shape, generator=generator).to(self._cache)
        self.write(keys, values, [0], 0)
        read = self.read([0])
        self._cache[0] = 0
        if not (torch.equal(read[0], keys) and torch.equal(read[1], values)):
            raise self._refusal("a KV block that was written is read differently")

    def _refusal(self, why: str) -> EngineError:
        backend = type(self._layer.impl).__name__
        return EngineError(f"sessions cannot be compacted with the attention of {backend}: {why}")


def _joined(blocks: Tensor) -> Tensor:
    """Blocks (num_blocks, H, block_tokens, d) as (H, num_blocks · block_tokens, d)."""
    return blocks.transpose(0, 1).flatten(1, 2)
