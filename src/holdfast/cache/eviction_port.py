"""The runtime's interface to the eviction queue."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.cache.prefix_tree import Node

__all__ = ["EvictionPort"]


class EvictionPort(Protocol):
    """Free blocks by node of the prefix tree."""

    def rescore(self, node: Node[Any]) -> None:
        """Rank a node anew: its retention priority may have changed."""

    def redistribute(self, upper: Node[Any], deeper: Node[Any]) -> None:
        """Move the shallow half's free blocks after a split."""

    def absorb(self, node: Node[Any]) -> None:
        """Join a childless node to its parent where possible."""

    def disown(self, node: Node[Any]) -> None:
        """Evict a childless node's free blocks first, and forget the node."""

    def reserve(self, node: Node[Any]) -> None:
        """Count one more reservation of a node."""

    def release(self, node: Node[Any]) -> None:
        """Count one reservation of a node less."""
