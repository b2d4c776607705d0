"""A bounded memory of evicted blocks, by prefix hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["EvictionMemory"]

T = TypeVar("T")


class EvictionMemory(Generic[T]):
    """Notes on prefix hashes, the oldest forgotten first. Look-ups are O(1).

    Blocks are evicted from the end of a path, so one note on the block evicted last stands for all
    that were evicted with it.

    Args:
        max_notes: Notes remembered (count).
    """

    def __init__(self, max_notes: int) -> None:
        self._max_notes = max_notes
        self._notes: dict[bytes, T] = {}

    def __len__(self) -> int:
        """Notes remembered (count)."""
        return len(self._notes)

    def note(self, block_hash: bytes, note: T) -> None:
        """Remember a note on a block, in place of an older one. Mutates; O(1)."""
        notes = self._notes
        notes.pop(block_hash, None)
        notes[block_hash] = note
        if len(notes) > self._max_notes:
            del notes[next(iter(notes))]

    def get(self, block_hash: bytes) -> T | None:
        """The note on a block, or None. Pure."""
        return self._notes.get(block_hash)

    def depth(self, hashes: Sequence[bytes], above: int) -> int:
        """Depth of a path's deepest block with a note, at least `above` (blocks). Pure.

        O(blocks below `above`).
        """
        notes = self._notes
        for depth in range(len(hashes), above, -1):
            if hashes[depth - 1] in notes:
                return depth
        return above

    def clear(self) -> None:
        """Forget all notes. Mutates."""
        self._notes.clear()
