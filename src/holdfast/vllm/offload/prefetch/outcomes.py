"""Prefetches in flight and their outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["OUTCOMES", "Prefetch", "PrefetchOutcomes"]

OUTCOMES: Final = ("used", "late", "wasted", "deferred", "refused")
"""`used`: a turn found the prefetched blocks. `late`: some were in flight when a turn needed them.
`wasted`: they were evicted before a turn needed them, or no turn did. `deferred`: there was no
space for a prefetch. `refused`: a tier had no space for the blocks, or no longer stored them."""

_MAX_REMEMBERED: Final = 256


@dataclass(slots=True, eq=False)
class Prefetch:
    """One path that is copied to a higher tier.

    Attributes:
        hashes: The path's prefix hashes.
        is_present: Whether the block of a hash is in the higher tier.
        is_for_queued: Whether a queued turn needs it; else a prompt that has not arrived yet.
        depth: Leading hashes of the path that are in the higher tier (count).
        num_blocks: Blocks asked for (count).
        is_in_flight: Whether some have not arrived.
        is_recorded: Whether `PrefetchOutcomes` follows it.
    """

    hashes: Sequence[bytes]
    is_present: Callable[[bytes], bool]
    is_for_queued: bool
    depth: int
    num_blocks: int
    is_in_flight: bool = True
    is_recorded: bool = False

    def outcome(self) -> str:
        """The outcome if a turn needs the path now. Pure."""
        if self.is_in_flight:
            return "late"
        return "used" if self.is_present(self.hashes[self.depth - 1]) else "wasted"

    def serves(self, hashes: Sequence[bytes]) -> bool:
        """Whether a prompt of these hashes needs the path. Pure."""
        end = len(self.hashes) if self.is_in_flight else self.depth
        return len(hashes) >= end and hashes[end - 1] == self.hashes[end - 1]


class PrefetchOutcomes:
    """Follows prefetches until a turn needs them, oldest first.

    Args:
        counts: Receives the outcomes.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self._open: dict[Prefetch, None] = {}
        self._last_deferred: bytes | None = None

    @property
    def num_blocks(self) -> int:
        """Blocks asked for that no turn has needed yet (count)."""
        return sum(prefetch.num_blocks for prefetch in self._open)

    def started(self, prefetch: Prefetch) -> None:
        """Follow a prefetch, once. Mutates.

        The oldest beyond a few hundred counts as wasted.
        """
        if prefetch.is_recorded:
            return
        prefetch.is_recorded = True
        self._open[prefetch] = None
        if len(self._open) > _MAX_REMEMBERED:
            del self._open[next(iter(self._open))]
            self.counts["wasted"] += 1

    def deferred(self, hashes: Sequence[bytes]) -> None:
        """Count a path for which there is no space now, once in a row. Mutates."""
        if hashes[-1] != self._last_deferred:
            self._last_deferred = hashes[-1]
            self.counts["deferred"] += 1

    def ended(self, prefetch: Prefetch, depth: int) -> None:
        """End a prefetch; it counts as refused if it copied nothing. Mutates.

        Args:
            prefetch: One that was started.
            depth: Leading hashes of its path that are in the higher tier now (count).
        """
        num_copied = depth - prefetch.depth
        prefetch.depth = depth
        prefetch.is_in_flight = False
        if prefetch in self._open and num_copied <= 0:
            del self._open[prefetch]
            self.counts["refused"] += 1

    def needed(self, hashes: Sequence[bytes], *, was_queued: bool) -> None:
        """Count the prefetches that a turn needs now. Mutates.

        Args:
            hashes: Of the turn's prompt.
            was_queued: Whether the turn was admitted from the queue; else it has just arrived.
        """
        for prefetch in list(self._open):
            if prefetch.is_for_queued == was_queued and prefetch.serves(hashes):
                del self._open[prefetch]
                self.counts[prefetch.outcome()] += 1

    def open_for(self, hashes: Sequence[bytes]) -> Prefetch | None:
        """The followed prefetch of exactly this path, if there is one."""
        return next((prefetch for prefetch in self._open if prefetch.hashes == hashes), None)

    def clear(self) -> None:
        """Follow no prefetch any more. Mutates."""
        self._open.clear()
