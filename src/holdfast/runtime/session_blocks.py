"""Each session's path in the prefix tree, in step with the host's free blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cache.eviction_port import EvictionPort
from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.session import Session

__all__ = ["SessionBlocks"]


class SessionBlocks:
    """Moves sessions along the prefix tree, and free blocks with them.

    Args:
        tree: The paths of all sessions.
        queue: The host's free blocks.
        on_left: Called with each node that no session uses any more, before it leaves the tree.
    """

    def __init__(
        self,
        tree: PrefixTree[Any],
        queue: EvictionPort,
        on_left: Callable[[Node[Any]], None],
    ) -> None:
        self._tree = tree
        self._queue = queue
        self._on_left = on_left

    def extend(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Make `hashes` the session's path and its last prompt. Mutates.

        Blocks of an answer that the prompt does not repeat are evicted first.
        """
        old_tail = session.tail
        old_tail.tails.discard(session)
        session.prompt_tail.prompts.discard(session)
        is_answer = old_tail is not session.prompt_tail
        is_dangling = is_answer and old_tail.is_attached and not old_tail.is_endpoint
        if is_dangling and self._tree.match(hashes).depth >= old_tail.end:
            self._queue.absorb(old_tail)
        session.tail = session.prompt_tail = tail = self.insert(hashes)
        session.prompt_blocks = len(hashes)
        if tail.parent is not None:
            tail.tails.add(session)
            tail.prompts.add(session)
        self.leave(old_tail)

    def append_answer(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Lengthen the session's path by the blocks of its answer. Mutates."""
        if len(hashes) <= session.prompt_blocks or not session.tail.is_attached:
            return
        session.tail.tails.discard(session)
        session.tail = self.insert(hashes)
        session.tail.tails.add(session)

    def drop(self, session: Session) -> None:
        """Take the session off its path. Mutates."""
        session.tail.tails.discard(session)
        session.prompt_tail.prompts.discard(session)
        self.leave(session.tail)

    def reserve(self, session: Session) -> None:
        """Reserve the session's blocks; see `EvictionPort.reserve`. Mutates."""
        if not session.has_reservation:
            session.has_reservation = True
            for node in session.tail.path():
                self._queue.reserve(node)

    def release(self, session: Session) -> None:
        """Release the session's reservation, if it has one. Mutates."""
        if session.has_reservation:
            session.has_reservation = False
            for node in session.tail.path():
                self._queue.release(node)

    def freed_by(self, session: Session) -> int:
        """Blocks that become free for others when `session` is released (count). Pure."""
        return sum(
            node.free_blocks.num_blocks
            for node in session.tail.path()
            if node.num_reservations == 1
        )

    def rescore(self, session: Session) -> None:
        """Rank the session's nodes anew: their priority may have changed. Mutates."""
        self._queue.rescore(session.tail)
        if session.prompt_tail is not session.tail:
            self._queue.rescore(session.prompt_tail)

    def rerank(self, node: Node[Any]) -> None:
        """Rank one node anew, if it is still in the tree. Mutates."""
        if node.is_attached:
            self._queue.rescore(node)

    def insert(self, hashes: Sequence[bytes]) -> Node[Any]:
        """The last node of a path of these blocks, new where it must be.

        Mutates the tree; blocks of a node that it splits follow their content.
        """
        tail, upper = self._tree.insert(hashes)
        if upper is not None:
            following = hashes[upper.end] if len(hashes) > upper.end else None
            deeper = next(node for key, node in upper.children.items() if key != following)
            self._queue.redistribute(upper, deeper)
        return tail

    def leave(self, node: Node[Any]) -> None:
        """Disown the nodes that no session uses any more, deepest first. Mutates."""
        while (
            node.parent is not None
            and node.is_attached
            and not node.children
            and not node.is_endpoint
        ):
            parent = node.parent
            self._on_left(node)
            self._queue.disown(node)
            node = parent
