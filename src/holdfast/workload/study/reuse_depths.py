"""Sums reused tokens by their LRU stack distance: a cache's hits at each size."""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.workload.study.recency import ReusedBlocks

__all__ = ["BinnedDepths", "Depths"]

# Cache sizes at 2 % intervals, up to 2^44 tokens.
_EDGES: Final = 2.0 ** (np.arange(44 * 32 + 1) / 32)


class Depths:
    """Exact depths of all reuses; a few bytes for each."""

    def __init__(self) -> None:
        self._tokens_above = array("d")
        self._num_blocks = array("d")
        self._block_tokens = array("d")

    def add(self, reused: ReusedBlocks, block_tokens: int, rate: float) -> None:
        """Add a reuse in a stack of all blocks; `rate` is 1."""
        del rate
        self._tokens_above.append(reused.tokens_above)
        self._num_blocks.append(reused.num_blocks)
        self._block_tokens.append(block_tokens)

    def hit_tokens(self, cache_tokens: float) -> float:
        """Tokens that an LRU cache of this size (>= 0) hits. Pure."""
        block_tokens, num_blocks = _floats(self._block_tokens), _floats(self._num_blocks)
        left_tokens = cache_tokens - block_tokens - _floats(self._tokens_above)
        num_hit = np.clip(np.floor(left_tokens / block_tokens) + 1, 0, num_blocks)
        return float(num_hit @ block_tokens)


class BinnedDepths:
    """Hits of caches of fixed sizes; constant memory in the number of reuses.

    Args:
        seen: Earlier reuses of all blocks, if any.
    """

    def __init__(self, seen: Depths | None = None) -> None:
        self._hit_tokens = np.zeros(len(_EDGES))
        if seen is not None:
            self._hit_tokens += [seen.hit_tokens(size) for size in _EDGES]

    def add(self, reused: ReusedBlocks, block_tokens: int, rate: float) -> None:
        """Add a reuse in the stack of a sample, scaled by the sample's rate (> 0)."""
        first = reused.tokens_above / rate + block_tokens
        begin = int(np.searchsorted(_EDGES, first))
        num_hit = np.floor((_EDGES[begin:] - first) * rate / block_tokens) + 1
        tokens = np.minimum(num_hit, reused.num_blocks) * (block_tokens / rate)
        self._hit_tokens[begin:] += tokens

    def hit_tokens(self, cache_tokens: float) -> float:
        """Tokens that an LRU cache of this size (>= 0) hits, interpolated linearly. Pure."""
        return float(np.interp(cache_tokens, _EDGES, self._hit_tokens, left=0.0))


def _floats(values: array[float]) -> NDArray[np.float64]:
    """A view of the array, which must not grow during the view's life."""
    return np.frombuffer(values, dtype=np.float64)
