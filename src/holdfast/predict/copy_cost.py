"""What copying KV blocks back takes on this engine, learned from copies that were made."""

from __future__ import annotations

import math

__all__ = ["CopyCost"]

_MEMORY = 0.98


class CopyCost:
    """Time a block, as the mean over recent copies, weighed by their size."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._blocks = 0.0

    def observe(self, num_blocks: float, seconds: float) -> None:
        """Learn from a copy of so many blocks. Mutates."""
        if num_blocks > 0 and 0.0 <= seconds < math.inf:
            self._seconds = _MEMORY * self._seconds + seconds
            self._blocks = _MEMORY * self._blocks + num_blocks

    def load_s(self, num_blocks: float) -> float:
        """Expected time to copy so many blocks (s); inf before any copy was seen. Pure."""
        if not self._blocks:
            return math.inf
        return num_blocks * self._seconds / self._blocks
