"""Time to store and load KV blocks, learned from copies on this engine."""

from __future__ import annotations

import math

__all__ = ["CopyCost"]

_MEMORY = 0.98


class CopyCost:
    """Mean time a block over recent copies, weighted by their size.

    Stores stand in for loads until the first load.
    """

    def __init__(self) -> None:
        self._loads = _Rate()
        self._stores = _Rate()

    def observe_load(self, num_blocks: float, seconds: float) -> None:
        """Learn from loads of `num_blocks` in all. Mutates."""
        self._loads.observe(num_blocks, seconds)

    def observe_store(self, num_blocks: float, seconds: float) -> None:
        """Learn from stores of `num_blocks` in all. Mutates."""
        self._stores.observe(num_blocks, seconds)

    def load_s(self, num_blocks: float) -> float:
        """Return the expected time to load `num_blocks` (s); inf before any copy. Pure."""
        rate = self._loads if self._loads.blocks else self._stores
        return rate.time_s(num_blocks)

    def store_s(self, num_blocks: float) -> float:
        """Return the expected time to store `num_blocks` (s); inf before any store. Pure."""
        return self._stores.time_s(num_blocks)


class _Rate:
    """Exponentially weighted sums of the seconds and blocks of copies."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.blocks = 0.0

    def observe(self, num_blocks: float, seconds: float) -> None:
        if num_blocks > 0 and 0.0 <= seconds < math.inf:
            self.seconds = _MEMORY * self.seconds + seconds
            self.blocks = _MEMORY * self.blocks + num_blocks

    def time_s(self, num_blocks: float) -> float:
        return num_blocks * self.seconds / self.blocks if self.blocks else math.inf
