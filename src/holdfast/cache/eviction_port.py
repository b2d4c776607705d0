"""What the runtime asks of the host's queue of free blocks."""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.cache.prefix_tree import Node

__all__ = ["EvictionPort"]


class EvictionPort(Protocol):
    """The host's free blocks, by run of the chain tree."""

    def rescore(self, node: Node[Any]) -> None:
        """Note that a run's worth may have changed."""

    def redistribute(self, upper: Node[Any], deeper: Node[Any]) -> None:
        """Move free blocks after a split."""

    def absorb(self, node: Node[Any]) -> None:
        """Join a run to the one before it."""

    def disown(self, node: Node[Any]) -> None:
        """Make a run's blocks the first to go."""

    def reserve(self, node: Node[Any]) -> None:
        """Count a place on a run."""

    def release(self, node: Node[Any]) -> None:
        """Uncount a place on a run."""
