"""Share of copies still stored in the lower tier when their session returns."""

from __future__ import annotations

__all__ = ["CopyRetention"]

_MEMORY = 0.95


class CopyRetention:
    """Share of evicted blocks that returning sessions find stored.

    Sessions without evicted blocks do not count.

    Attributes:
        share: Expected share (0 to 1); 1 before the first observation.
    """

    def __init__(self) -> None:
        self.share = 1.0

    def observe(self, num_stored: int, num_evicted: int) -> None:
        """Learn how many evicted blocks of a returning session are stored. Mutates."""
        if num_evicted > 0:
            stored = min(max(num_stored / num_evicted, 0.0), 1.0)
            self.share = _MEMORY * self.share + (1.0 - _MEMORY) * stored
