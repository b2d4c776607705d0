"""In which order free blocks would go if nothing changed: a snapshot, for questions and tests."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from holdfast.cache.prefix_tree import Node

__all__ = ["eviction_snapshot"]

_Priority = tuple[float, float]


def eviction_snapshot(
    nodes: Iterable[Node[Any]],
    priority_of: Callable[[Node[Any]], _Priority],
    age_of: Callable[[Any], int],
    *,
    keeps_chains: bool = True,
) -> Iterator[Any]:
    """Free blocks of all runs, cheapest first. Pure; O(blocks log blocks).

    Args:
        nodes: Every run that may have free blocks.
        priority_of: Class of worth and worth within it.
        age_of: Increasing count of when a block became free.
        keeps_chains: Whether a run goes only after the runs that continue it.
    """
    block_lists = [node for node in nodes if node.free_blocks.head is not None]
    blockers = {s: s.num_open_children if keeps_chains else 0 for s in block_lists}
    ready: list[tuple[_Priority, int, int, Node[Any], Any]] = []

    def enter(node: Node[Any], priority: _Priority, block: Any) -> None:
        heapq.heappush(ready, (priority, age_of(block), block.block_id, node, block))

    for node in block_lists:
        if not blockers[node]:
            enter(node, priority_of(node), node.free_blocks.head)
    while ready:
        priority, _, _, node, block = heapq.heappop(ready)
        yield block
        parent = node.parent
        if block.next_free_block is not None:
            enter(node, priority, block.next_free_block)
        elif parent is not None and blockers.get(parent):
            blockers[parent] -= 1
            if not blockers[parent]:
                enter(parent, priority_of(parent), parent.free_blocks.head)
