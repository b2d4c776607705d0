"""What copying KV blocks away and back takes on this engine, learned from copies that were made."""

from __future__ import annotations

import math

__all__ = ["CopyCost"]

_MEMORY = 0.98


class CopyCost:
    """Time a block, as the mean over recent copies, weighed by their size.

    Copies away stand in for copies back until there has been one.
    """

    def __init__(self) -> None:
        self._back = _Rate()
        self._away = _Rate()

    def observe_load(self, num_blocks: float, seconds: float) -> None:
        """Learn from copies back of so many blocks. Mutates."""
        self._back.observe(num_blocks, seconds)

    def observe_store(self, num_blocks: float, seconds: float) -> None:
        """Learn from copies away of so many blocks. Mutates."""
        self._away.observe(num_blocks, seconds)

    def load_s(self, num_blocks: float) -> float:
        """Expected time to copy so many blocks back (s); inf before any copy was seen. Pure."""
        rate = self._back if self._back.blocks else self._away
        return rate.time_s(num_blocks)

    def store_s(self, num_blocks: float) -> float:
        """Expected time to copy so many blocks away (s); inf before any copy away. Pure."""
        return self._away.time_s(num_blocks)


class _Rate:
    """Seconds and blocks of recent copies, both fading."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.blocks = 0.0

    def observe(self, num_blocks: float, seconds: float) -> None:
        if num_blocks > 0 and 0.0 <= seconds < math.inf:
            self.seconds = _MEMORY * self.seconds + seconds
            self.blocks = _MEMORY * self.blocks + num_blocks

    def time_s(self, num_blocks: float) -> float:
        return num_blocks * self.seconds / self.blocks if self.blocks else math.inf
