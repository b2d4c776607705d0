"""Which run gives up the next free blocks: the cheapest, asked for its worth once a batch.

A run that was the cheapest stays so, unasked, until another is ranked below it or the batch is
settled: what an engine step takes block by block costs no more than taking it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any

from holdfast.cache.node_heap import Key, NodeHeap
from holdfast.cache.prefix_tree import Node

__all__ = ["Priority", "VictimRanking"]

Priority = tuple[float, float]
"""Class of worth, cheapest first, then worth within the class; compared in that order."""

_MAX_RESCORES = 8


class VictimRanking:
    """Runs with free blocks by worth, then by age of their next victim.

    Args:
        is_ready: Whether a run's next victim may go now.
        worth_of: A run's worth now.
        age_of: When a block became free, as an increasing count.
        on_evict: Told of each batch of blocks that a run has given up.
    """

    def __init__(
        self,
        is_ready: Callable[[Node[Any]], bool],
        priority_of: Callable[[Node[Any]], Priority],
        age_of: Callable[[Any], int],
        on_evict: Callable[[Node[Any], int], None],
    ) -> None:
        self._is_ready = is_ready
        self._priority_of = priority_of
        self._age_of = age_of
        self._on_evict = on_evict
        self._ranking = NodeHeap(is_ready)
        self._victim: Node[Any] | None = None  # not in the ranking
        self._priority: Priority = (0, 0.0)
        self._leads = False  # whether every rival is worth more than the victim
        self._num_taken = 0

    def __len__(self) -> int:
        """Entries kept, outdated ones included (count)."""
        return len(self._ranking)

    def offer(self, node: Node[Any]) -> None:
        """Rank a run anew if it is ready: its worth or its next victim has changed."""
        if node is self._victim:
            self.settle()
        elif self._is_ready(node):
            self._ranking.push(node, self._key(node, self._priority_of(node)))
            self._leads = False

    def cheapest(self, most: int) -> tuple[Node[Any], int]:
        """The cheapest run, and how many of its blocks go before any other's, up to `most`."""
        victim = self._victim
        if self._leads and victim is not None and self._is_ready(victim):
            return victim, min(most, victim.free_blocks.num_blocks)
        rival = self._ranking.lowest()
        if victim is None or not self._is_first(victim, rival):
            self.settle()
            victim, self._priority = self._search()
            self._victim = victim
            rival = self._ranking.lowest()
        num_blocks = min(most, victim.free_blocks.num_blocks)
        self._leads = rival is None or self._priority < rival[:2]
        if rival is not None and not self._leads:
            num_blocks = self._num_before(victim, rival, num_blocks)
        return victim, num_blocks

    def took(self, num_blocks: int) -> None:
        """So many blocks of the cheapest run were taken."""
        self._num_taken += num_blocks

    def settle(self) -> None:
        """Report what was taken, and rank the run it was taken from anew."""
        victim, num_taken = self._victim, self._num_taken
        if victim is None:
            return
        self._victim, self._leads, self._num_taken = None, False, 0
        self.offer(victim)
        if num_taken:
            self._on_evict(victim, num_taken)

    def clear(self) -> None:
        """Take out every run."""
        self.settle()
        self._ranking.clear()

    def key_of(self, node: Node[Any]) -> Key | None:
        """The key that a run is ranked by, or None; for tests. O(entries)."""
        if node is self._victim:
            return self._key(node, self._priority)
        return self._ranking.key_of(node)

    def _search(self) -> tuple[Node[Any], Priority]:
        """Take out the cheapest run with its worth as of now."""
        for _ in range(_MAX_RESCORES):
            node, _ = self._ranking.pop()
            priority = self._priority_of(node)
            rival = self._ranking.lowest()
            if rival is None or self._key(node, priority) <= rival:
                return node, priority
            self.offer(node)
        node, (priority_class, within_class, _) = self._ranking.pop()
        return node, (priority_class, within_class)

    def _is_first(self, victim: Node[Any], rival: Key | None) -> bool:
        if not self._is_ready(victim):
            return False
        return rival is None or self._key(victim, self._priority) <= rival

    def _num_before(self, victim: Node[Any], rival: Key, most: int) -> int:
        """Victims of a run that go before its rival of equal worth; at least one."""
        ages = (self._age_of(block) for block in islice(victim.free_blocks, most))
        return max(1, sum(1 for _ in takewhile(lambda age: (*self._priority, age) <= rival, ages)))

    def _key(self, node: Node[Any], priority: Priority) -> Key:
        return *priority, self._age_of(node.free_blocks.head)
