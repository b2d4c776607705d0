"""In which order free blocks would go if nothing changed: a snapshot, for questions and tests."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.cache.prefix_tree import Node

__all__ = ["eviction_snapshot"]

_Worth = tuple[float, float]


def eviction_snapshot(
    segments: Iterable[Node[Any]],
    worth_of: Callable[[Node[Any]], _Worth],
    age_of: Callable[[Any], int],
    *,
    keeps_chains: bool = True,
) -> Iterator[Any]:
    """Free blocks of all runs, cheapest first. Pure; O(blocks log blocks).

    Args:
        segments: Every run that may have free blocks.
        worth_of: Class of worth and worth within it.
        age_of: Increasing count of when a block became free.
        keeps_chains: Whether a run goes only after the runs that continue it.
    """
    lanes = [segment for segment in segments if segment.lane.head is not None]
    blockers = {s: s.num_open_children if keeps_chains else 0 for s in lanes}
    ready: list[tuple[_Worth, int, int, Node[Any], Any]] = []

    def enter(segment: Node[Any], worth: _Worth, block: Any) -> None:
        heapq.heappush(ready, (worth, age_of(block), block.block_id, segment, block))

    for segment in lanes:
        if not blockers[segment]:
            enter(segment, worth_of(segment), segment.lane.head)
    while ready:
        worth, _, _, segment, block = heapq.heappop(ready)
        yield block
        parent = segment.parent
        if block.next_free_block is not None:
            enter(segment, worth, block.next_free_block)
        elif parent is not None and blockers.get(parent):
            blockers[parent] -= 1
            if not blockers[parent]:
                enter(parent, worth_of(parent), parent.lane.head)
