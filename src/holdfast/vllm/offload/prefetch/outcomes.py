"""Chains that were sent for before they were needed, and what became of that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["OUTCOMES", "Prefetch", "PrefetchOutcomes"]

OUTCOMES: Final = ("used", "late", "wasted", "deferred", "refused")
"""`used`: all that was sent for was there when it was needed. `late`: some was still on its way.
`wasted`: some was gone again, or nobody needed it. `deferred`: there was something to bring, and no
room for it then. `refused`: a tier had no room for it, or did not have it after all."""

_MAX_REMEMBERED: Final = 256


@dataclass(slots=True, eq=False)
class Prefetch:
    """One chain that is brought closer.

    Attributes:
        hashes: The chain's prefix hashes.
        is_there: Whether the block of a hash is where it is to be brought.
        waits: Whether a turn in the queue needs it, once it is let in; else a prompt will that has
            not arrived.
        depth: Leading hashes of the chain that are there (count).
        num_blocks: Blocks sent for (count).
        is_under_way: Whether some have not arrived.
        is_known: Whether it was counted among those sent.
    """

    hashes: Sequence[bytes]
    is_there: Callable[[bytes], bool]
    waits: bool
    depth: int
    num_blocks: int
    is_under_way: bool = True
    is_known: bool = False

    def outcome(self) -> str:
        """What came of it, now that the chain is needed. Pure."""
        if self.is_under_way:
            return "late"
        return "used" if self.is_there(self.hashes[self.depth - 1]) else "wasted"

    def is_for(self, hashes: Sequence[bytes]) -> bool:
        """Whether a prompt of these hashes needs the chain. Pure."""
        end = len(self.hashes) if self.is_under_way else self.depth
        return len(hashes) >= end and hashes[end - 1] == self.hashes[end - 1]


class PrefetchOutcomes:
    """PrefetchOutcomes of one way that nobody needed yet, the oldest foremost.

    Args:
        counts: Receives the outcomes.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self._open: dict[Prefetch, None] = {}
        self._deferred: bytes | None = None

    @property
    def num_blocks(self) -> int:
        """Blocks that were sent for (count)."""
        return sum(errand.num_blocks for errand in self._open)

    def sent(self, errand: Prefetch) -> None:
        """Something was sent for; may be said again. Mutates.

        Beyond a few hundred the oldest counts as wasted.
        """
        if errand.is_known:
            return
        errand.is_known = True
        self._open[errand] = None
        if len(self._open) > _MAX_REMEMBERED:
            del self._open[next(iter(self._open))]
            self.counts["wasted"] += 1

    def deferred(self, hashes: Sequence[bytes]) -> None:
        """There is no room for a chain now; the same one counts once in a row. Mutates."""
        if hashes[-1] != self._deferred:
            self._deferred = hashes[-1]
            self.counts["deferred"] += 1

    def arrived(self, errand: Prefetch, depth: int) -> None:
        """All that will come has arrived. Mutates.

        Args:
            errand: One that was sent.
            depth: Leading hashes of its chain that are there now (count).
        """
        num_brought = depth - errand.depth
        errand.depth = depth
        errand.is_under_way = False
        if errand in self._open and num_brought <= 0:
            del self._open[errand]
            self.counts["refused"] += 1

    def needed(self, hashes: Sequence[bytes], *, waited: bool) -> None:
        """A turn needs the chain of its prompt now. Mutates.

        Args:
            hashes: The prompt's.
            waited: Whether it comes from the queue; else the prompt has just arrived.
        """
        for errand in list(self._open):
            if errand.waits == waited and errand.is_for(hashes):
                del self._open[errand]
                self.counts[errand.outcome()] += 1

    def on_way_to(self, hashes: Sequence[bytes]) -> Prefetch | None:
        """The errand whose chain this is, if there is one."""
        return next((errand for errand in self._open if errand.hashes == hashes), None)

    def clear(self) -> None:
        """Nothing was sent for. Mutates."""
        self._open.clear()
