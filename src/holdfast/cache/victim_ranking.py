"""The ranking of nodes with free blocks; the first has the next victim.

The first node stays first, without another call of `priority_of`, until another node is ranked
below it or the batch is settled: blocks taken one by one cost no more than blocks taken at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any

from holdfast.cache.prefix_tree import Node

__all__ = ["Key", "NodeHeap", "Priority", "VictimRanking"]

Priority = tuple[float, float]
"""Priority class, then priority within the class; the smallest is evicted first."""

Key = tuple[float, float, int]
"""A node's priority, then when its next victim became free; the smallest is evicted first."""

_Entry = tuple[float, float, int, int, Node[Any]]

_FEW_ENTRIES = 64
_MAX_ENTRIES_A_NODE = 4
_MAX_RESCORES = 8


class VictimRanking:
    """Nodes with free blocks by retention priority, then by age of their next victim.

    Args:
        is_ready: Whether a node's next victim may be evicted now.
        priority_of: A node's retention priority now.
        freed_at: When a block became free, as an increasing count.
        on_evict: Receives each batch of evicted blocks: the node and the count.
    """

    def __init__(
        self,
        is_ready: Callable[[Node[Any]], bool],
        priority_of: Callable[[Node[Any]], Priority],
        freed_at: Callable[[Any], int],
        on_evict: Callable[[Node[Any], int], None],
    ) -> None:
        self._is_ready = is_ready
        self._priority_of = priority_of
        self._freed_at = freed_at
        self._on_evict = on_evict
        self._heap = NodeHeap(is_ready)
        self._first: Node[Any] | None = None  # not in the heap
        self._priority: Priority = (0, 0.0)  # of the first node
        self._is_lowest = False  # whether every other node has a higher priority
        self._num_taken = 0

    def __len__(self) -> int:
        """Entries kept, outdated ones included (count)."""
        return len(self._heap)

    def offer(self, node: Node[Any]) -> None:
        """Rank a node anew, as its priority or next victim has changed. Mutates."""
        if node is self._first:
            self.settle()
        elif self._is_ready(node):
            self._heap.push(node, self._key(node, self._priority_of(node)))
            self._is_lowest = False

    def first(self, max_blocks: int) -> tuple[Node[Any], int]:
        """Return the first node, and how many of its blocks precede all others. Mutates.

        Args:
            max_blocks: Upper limit of that count (>= 1).
        """
        first = self._first
        if self._is_lowest and first is not None and self._is_ready(first):
            return first, min(max_blocks, first.free_blocks.num_blocks)
        rival = self._heap.lowest()
        if first is None or not self._precedes(first, rival):
            self.settle()
            first, self._priority = self._pop_current()
            self._first = first
            rival = self._heap.lowest()
        num_blocks = min(max_blocks, first.free_blocks.num_blocks)
        self._is_lowest = rival is None or self._priority < rival[:2]
        if rival is not None and not self._is_lowest:
            num_blocks = self._num_before(first, rival, num_blocks)
        return first, num_blocks

    def note_taken(self, num_blocks: int) -> None:
        """Count blocks taken from the first node. Mutates."""
        self._num_taken += num_blocks

    def settle(self) -> None:
        """Report the blocks taken from the first node, and rank it anew. Mutates."""
        first, num_taken = self._first, self._num_taken
        if first is None:
            return
        self._first, self._is_lowest, self._num_taken = None, False, 0
        self.offer(first)
        if num_taken:
            self._on_evict(first, num_taken)

    def clear(self) -> None:
        """Settle, then remove every node. Mutates."""
        self.settle()
        self._heap.clear()

    def key_of(self, node: Node[Any]) -> Key | None:
        """Return the key that a node is ranked by, or None; for tests. O(entries)."""
        if node is self._first:
            return self._key(node, self._priority)
        return self._heap.key_of(node)

    def _pop_current(self) -> tuple[Node[Any], Priority]:
        """Remove the first node by current priorities, after a bounded number of rescores."""
        for _ in range(_MAX_RESCORES):
            node, _ = self._heap.pop()
            priority = self._priority_of(node)
            rival = self._heap.lowest()
            if rival is None or self._key(node, priority) <= rival:
                return node, priority
            self.offer(node)
        node, (priority_class, within_class, _) = self._heap.pop()
        return node, (priority_class, within_class)

    def _precedes(self, node: Node[Any], rival: Key | None) -> bool:
        if not self._is_ready(node):
            return False
        return rival is None or self._key(node, self._priority) <= rival

    def _num_before(self, node: Node[Any], rival: Key, max_blocks: int) -> int:
        """Count a node's blocks that precede a rival of equal priority; at least one."""
        blocks = node.free_blocks
        if blocks.is_by_age and (*self._priority, self._freed_at(blocks.tail)) <= rival:
            return max_blocks
        freed_at = (self._freed_at(block) for block in islice(blocks, max_blocks))
        before = takewhile(lambda number: (*self._priority, number) <= rival, freed_at)
        return max(1, sum(1 for _ in before))

    def _key(self, node: Node[Any], priority: Priority) -> Key:
        return *priority, self._freed_at(node.free_blocks.head)


class NodeHeap:
    """Nodes by key, the lowest first. Operations are O(log nodes), amortised.

    A node's newer entry replaces its older ones.

    Args:
        is_ready: Whether a node's next victim may be evicted now; other nodes are skipped.
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
        """Rank `node` by `key` from now on. Mutates the node's `version`."""
        self._num_pushes += 1
        node.version = self._num_pushes
        heapq.heappush(self._heap, (*key, node.version, node))
        if len(self._heap) > self._max_entries:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapq.heapify(self._heap)
            self._max_entries = _FEW_ENTRIES + _MAX_ENTRIES_A_NODE * len(self._heap)

    def lowest(self) -> Key | None:
        """Return the key of the node that `pop` would return, or None if none is ready."""
        self._drop_outdated()
        return self._heap[0][:3] if self._heap else None

    def pop(self) -> tuple[Node[Any], Key]:
        """Remove and return the lowest node that is ready, and its key. Mutates.

        Raises:
            IndexError: None is ready.
        """
        self._drop_outdated()
        entry = heapq.heappop(self._heap)
        return entry[4], entry[:3]

    def key_of(self, node: Node[Any]) -> Key | None:
        """Return the key that `node` is ranked by, or None; for tests. O(entries)."""
        keys = [e[:3] for e in self._heap if e[4] is node and self._is_current(e)]
        return keys[0] if keys else None

    def clear(self) -> None:
        """Remove every node. Mutates."""
        self._heap.clear()

    def _drop_outdated(self) -> None:
        heap = self._heap
        while heap and not self._is_current(heap[0]):
            heapq.heappop(heap)

    def _is_current(self, entry: _Entry) -> bool:
        node = entry[4]
        return entry[3] == node.version and self._is_ready(node)
