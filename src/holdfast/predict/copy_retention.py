"""How much of what a lower tier holds for a paused session will still be there when it is back."""

from __future__ import annotations

__all__ = ["CopyRetention"]

_MEMORY = 0.95


class CopyRetention:
    """The share that returning sessions found, of what they no longer had in the cache.

    Sessions that did not lose anything say nothing. Before there was one, all of it.

    Attributes:
        share: Expected share (0 to 1).
    """

    def __init__(self) -> None:
        self.share = 1.0

    def observe(self, num_found: int, num_lost: int) -> None:
        """A session is back, had lost so many blocks and found so many of them. Mutates."""
        if num_lost > 0:
            found = min(max(num_found / num_lost, 0.0), 1.0)
            self.share = _MEMORY * self.share + (1.0 - _MEMORY) * found
