"""The eviction order of all free blocks as of now, for queries and tests."""

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
    freed_at: Callable[[Any], int],
    *,
    children_first: bool = True,
) -> Iterator[Any]:
    """Yield all nodes' free blocks, next victim first. Pure; O(blocks log blocks).

    Args:
        nodes: Every node that may have free blocks.
        priority_of: A node's retention priority.
        freed_at: When a block became free, as an increasing count.
        children_first: Whether a node is evicted only after its children.
    """
    with_blocks = [node for node in nodes if node.free_blocks.head is not None]
    blockers = {node: node.num_open_children if children_first else 0 for node in with_blocks}
    ready: list[tuple[_Priority, int, int, Node[Any], Any]] = []

    def enter(node: Node[Any], priority: _Priority, block: Any) -> None:
        heapq.heappush(ready, (priority, freed_at(block), block.block_id, node, block))

    for node in with_blocks:
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
