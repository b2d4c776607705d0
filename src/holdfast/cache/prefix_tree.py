"""The radix tree of all known prefix hashes, and the sessions that use its nodes.

Consecutive blocks with the same users are one `Node`; a fork splits a node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from holdfast.cache.block_list import Block, BlockList

__all__ = ["Match", "Node", "PrefixTree"]

B = TypeVar("B", bound=Block)


class Node(Generic[B]):
    """Consecutive blocks of the prefix tree with the same users.

    Attributes:
        parent: The node before it; None for the root.
        children: Nodes that extend it, by their first hash.
        start: Depth of the first block (blocks from the start of the prompt).
        hashes: Prefix hashes of its blocks, in order.
        tails: Sessions whose path ends here, last output included.
        prompts: Sessions whose last prompt ends here.
        num_reservations: Sessions with a reservation whose path contains this node.
        free_blocks: The node's free blocks, deepest first.
        num_open_children: Children with free blocks; the node is evicted only at zero.
        is_attached: False once the node has left the tree.
        version: Changes whenever the node is ranked anew.
    """

    __slots__ = (
        "children",
        "free_blocks",
        "hashes",
        "is_attached",
        "num_open_children",
        "num_reservations",
        "parent",
        "prompts",
        "start",
        "tails",
        "version",
    )

    def __init__(self, parent: Node[B] | None, start: int, hashes: list[bytes]) -> None:
        self.parent = parent
        self.children: dict[bytes, Node[B]] = {}
        self.start = start
        self.hashes = hashes
        self.tails: set[Any] = set()
        self.prompts: set[Any] = set()
        self.num_reservations = 0
        self.free_blocks: BlockList[B] = BlockList()
        self.num_open_children = 0
        self.is_attached = True
        self.version = 0

    @property
    def end(self) -> int:
        """Depth just past the last block."""
        return self.start + len(self.hashes)

    @property
    def is_endpoint(self) -> bool:
        """Whether a session's prompt or path ends here."""
        return bool(self.tails or self.prompts)

    def path(self) -> Iterator[Node[B]]:
        """Yield this node and those before it, deepest first, without the root."""
        node: Node[B] = self
        while node.parent is not None:
            yield node
            node = node.parent

    def subtree(self) -> Iterator[Node[B]]:
        """Yield this node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class Match(NamedTuple, Generic[B]):
    """A prompt's longest known prefix: `depth` blocks, the last of them in `node`."""

    node: Node[B]
    depth: int


class PrefixTree(Generic[B]):
    """All known prefix hashes. Every mutation keeps `locate` consistent with the tree."""

    def __init__(self) -> None:
        self.root: Node[B] = Node(None, 0, [])
        self._node_of: dict[bytes, Node[B]] = {}

    def __len__(self) -> int:
        """Known blocks (count)."""
        return len(self._node_of)

    def locate(self, block_hash: bytes) -> Node[B] | None:
        """Return the node that contains `block_hash`. Pure; O(1)."""
        return self._node_of.get(block_hash)

    def match(self, hashes: Sequence[bytes]) -> Match[B]:
        """Find the longest known prefix of `hashes`. Pure; O(nodes * log(node length))."""
        node = self.root
        depth = 0
        while depth < len(hashes):
            child = node.children.get(hashes[depth])
            if child is None:
                break
            node = child
            shared = _shared_length(child.hashes, hashes, depth)
            depth += shared
            if shared < len(child.hashes):
                break
        return Match(node, depth)

    def insert(self, hashes: Sequence[bytes]) -> tuple[Node[B], Node[B] | None]:
        """Make `hashes` a path that ends at a node's end. Mutates the tree.

        A path that ends or forks inside a node splits it: the deeper half stays the same object,
        so its tails and free blocks stay valid; the caller moves the shallow half's free blocks.

        Returns:
            The path's last node (the root for an empty path), and the new shallow half if a node
            was split.
        """
        node, depth = self.match(hashes)
        upper: Node[B] | None = None
        if depth < node.end:
            node = upper = self._split(node, depth - node.start)
        if depth == len(hashes):
            return node, upper
        rest = list(hashes[depth:])
        if node is self.root or node.children or node.is_endpoint:
            child: Node[B] = Node(node, depth, rest)
            node.children[rest[0]] = child
            node = child
        else:
            node.hashes.extend(rest)
        for block_hash in rest:
            self._node_of[block_hash] = node
        return node, upper

    def absorb(self, node: Node[B]) -> Node[B] | None:
        """Join a childless node to its parent if it is the only child, with equal users.

        Mutates the tree, not the block lists. O(length of `node`).

        Returns:
            The joined node, or None if the two must stay apart.
        """
        parent = node.parent
        if parent is None or parent.parent is None or node.children:
            return None
        if (
            len(parent.children) != 1
            or parent.is_endpoint
            or node.num_reservations != parent.num_reservations
        ):
            return None
        parent.hashes.extend(node.hashes)
        for block_hash in node.hashes:
            self._node_of[block_hash] = parent
        parent.children = {}
        parent.tails, parent.prompts = node.tails, node.prompts
        parent.num_open_children = 0
        node.is_attached = False
        return parent

    def detach(self, node: Node[B]) -> None:
        """Remove a childless node and its hashes from the tree. Mutates the tree."""
        assert not node.children and node.parent is not None
        for block_hash in node.hashes:
            if self._node_of.get(block_hash) is node:
                del self._node_of[block_hash]
        del node.parent.children[node.hashes[0]]
        if node.free_blocks.num_blocks:
            node.parent.num_open_children -= 1
        node.is_attached = False

    def prune(self, node: Node[B]) -> None:
        """Detach `node` and then each parent that has no use left. Mutates the tree."""
        while (
            node.parent is not None
            and node.is_attached
            and not node.children
            and not node.is_endpoint
            and not node.free_blocks.num_blocks
        ):
            parent = node.parent
            self.detach(node)
            node = parent

    def clear(self) -> None:
        """Forget every path. Mutates the tree; nodes handed out before are detached."""
        for node in self.root.subtree():
            node.is_attached = node is self.root
        self.root = Node(None, 0, [])
        self._node_of.clear()

    def _split(self, node: Node[B], length: int) -> Node[B]:
        """Move the first `length` blocks of `node` into a new parent of it; return that."""
        assert node.parent is not None
        upper: Node[B] = Node(node.parent, node.start, node.hashes[:length])
        upper.num_reservations = node.num_reservations
        upper.num_open_children = 1 if node.free_blocks.num_blocks else 0
        node.parent.children[upper.hashes[0]] = upper
        node.hashes = node.hashes[length:]
        node.start += length
        node.parent = upper
        upper.children[node.hashes[0]] = node
        if node.free_blocks.num_blocks and upper.parent is not None:
            upper.parent.num_open_children -= 1
        for block_hash in upper.hashes:
            self._node_of[block_hash] = upper
        return upper

    def check_integrity(self) -> None:
        """Assert that the tree is consistent; for tests. O(blocks)."""
        seen = 0
        for node in self.root.subtree():
            for key, child in node.children.items():
                assert child.parent is node and child.hashes[0] == key
                assert child.start == node.end
            open_children = sum(1 for c in node.children.values() if c.free_blocks.num_blocks)
            assert node.num_open_children == open_children
            for block_hash in node.hashes:
                assert self._node_of[block_hash] is node
                seen += 1
        assert seen == len(self._node_of)


def _shared_length(own: list[bytes], hashes: Sequence[bytes], offset: int) -> int:
    """Count equal leading blocks; blocks equal at a depth are equal before it."""
    low, high = 0, min(len(own), len(hashes) - offset)
    if high and own[high - 1] == hashes[offset + high - 1]:
        return high
    while low < high:
        middle = (low + high) // 2
        if own[middle] == hashes[offset + middle]:
            low = middle + 1
        else:
            high = middle
    return low
