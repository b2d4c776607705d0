"""Which run's free blocks go next: runs by worth, then by age of their next victim.

Knows nothing about where worths come from. A run's newer entry replaces its older ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from holdfast.cache.prefix_tree import Node

__all__ = ["Key", "NodeHeap"]

Key = tuple[float, float, int]
"""Class of worth, worth within the class, age of the run's next victim; compared in that order."""

_Entry = tuple[float, float, int, int, Node[Any]]

_FEW_ENTRIES = 64
_MAX_ENTRIES_A_RUN = 4


class NodeHeap:
    """Runs in order of worth, the lowest first. Operations are O(log runs), amortised.

    Args:
        is_ready: Whether a run's next victim may go now; entries of others are passed over.
    """

    def __init__(self, is_ready: Callable[[Node[Any]], bool]) -> None:
        self._is_ready = is_ready
        self._heap: list[_Entry] = []
        self._num_pushes = 0
        self._max_entries = _FEW_ENTRIES

    def __len__(self) -> int:
        """Entries kept, outdated ones included (count)."""
        return len(self._heap)

    def push(self, node: Node[Any], key: Key) -> None:
        """Rank `segment` by `key` from now on. Mutates the run's `version`."""
        self._num_pushes += 1
        node.version = self._num_pushes
        heapq.heappush(self._heap, (*key, node.version, node))
        if len(self._heap) > self._max_entries:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapq.heapify(self._heap)
            self._max_entries = _FEW_ENTRIES + _MAX_ENTRIES_A_RUN * len(self._heap)

    def lowest(self) -> Key | None:
        """The key of the run that `pop` would give, or None if none is ready."""
        self._drop_outdated()
        return self._heap[0][:3] if self._heap else None

    def pop(self) -> tuple[Node[Any], Key]:
        """Take out the lowest run that is ready.

        Raises:
            IndexError: None is ready.
        """
        self._drop_outdated()
        entry = heapq.heappop(self._heap)
        return entry[4], entry[:3]

    def key_of(self, node: Node[Any]) -> Key | None:
        """The key that `segment` is ranked by, or None; for tests. O(entries)."""
        keys = [e[:3] for e in self._heap if e[4] is node and self._is_current(e)]
        return keys[0] if keys else None

    def clear(self) -> None:
        """Take out every run."""
        self._heap.clear()

    def _drop_outdated(self) -> None:
        heap = self._heap
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)

    def _is_current(self, entry: _Entry) -> bool:
        node = entry[4]
        return entry[3] == node.version and self._is_ready(node)
