"""Which sessions share which KV blocks: a tree of block-hash runs.

A prefix hash stands for a whole prefix, so the prompts that an engine has seen form a tree. Runs
of blocks that the same sessions use are one `Node`; a fork splits a run. Knows nothing about
time or worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from holdfast.cache.block_list import Block, BlockList

__all__ = ["Match", "Node", "PrefixTree"]

B = TypeVar("B", bound=Block)


class Node(Generic[B]):
    """A run of consecutive blocks with the same users.

    Attributes:
        parent: The run before it, or None for the tree's root.
        children: Runs that continue it, by their first hash.
        start: Depth of the first block (blocks from the start of the prompt).
        hashes: Prefix hashes of the run, in order.
        tails: Sessions whose chain ends with this run, last output included.
        prompts: Sessions whose last prompt ends with this run.
        num_reservations: Sessions holding a place whose chain contains this run.
        free_blocks: The node's free blocks, deepest first.
        num_open_children: Children with free blocks; this run is evicted only at zero.
        is_attached: False once the run has left the tree.
        version: Changes whenever the run is ranked anew.
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
        """Depth just past the run's last block."""
        return self.start + len(self.hashes)

    @property
    def is_endpoint(self) -> bool:
        """Whether some session's prompt or chain ends with this run."""
        return bool(self.tails or self.prompts)

    def path(self) -> Iterator[Node[B]]:
        """This run and the runs before it, deepest first, without the root."""
        node: Node[B] = self
        while node.parent is not None:
            yield node
            node = node.parent

    def subtree(self) -> Iterator[Node[B]]:
        """This run and all that continue it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class Match(NamedTuple, Generic[B]):
    """How far a prompt follows the tree: `depth` blocks, the last of them in `segment`."""

    node: Node[B]
    depth: int


class PrefixTree(Generic[B]):
    """All known chains. Every mutation keeps `locate` and the tree in step."""

    def __init__(self) -> None:
        self.root: Node[B] = Node(None, 0, [])
        self._where: dict[bytes, Node[B]] = {}

    def __len__(self) -> int:
        """Known blocks (count)."""
        return len(self._where)

    def locate(self, block_hash: bytes) -> Node[B] | None:
        """The run that contains `block_hash`. Pure, O(1)."""
        return self._where.get(block_hash)

    def match(self, hashes: Sequence[bytes]) -> Match[B]:
        """The longest known prefix of `hashes`. Pure; O(runs * log(run length))."""
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
        """Make `hashes` a chain that ends at a run's end.

        Mutates the tree. A chain that ends or leaves inside a run splits that run: the deeper half
        stays the same object, so its tails and free blocks stay valid; the caller moves the free
        blocks of the shallow half.

        Returns:
            The last run of the chain (the root for an empty one), and the new shallow half of a
            split run, if one was split.
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
            self._where[block_hash] = node
        return node, upper

    def absorb(self, node: Node[B]) -> Node[B] | None:
        """Join a childless run to the run before it, if it is that run's only continuation.

        Mutates the tree, not the lanes. O(length of `segment`).

        Returns:
            The joined run, or None if the two must stay apart.
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
            self._where[block_hash] = parent
        parent.children = {}
        parent.tails, parent.prompts = node.tails, node.prompts
        parent.num_open_children = 0
        node.is_attached = False
        return parent

    def detach(self, node: Node[B]) -> None:
        """Take a childless run out of the tree; its hashes are known no more. Mutates the tree."""
        assert not node.children and node.parent is not None
        for block_hash in node.hashes:
            if self._where.get(block_hash) is node:
                del self._where[block_hash]
        del node.parent.children[node.hashes[0]]
        if node.free_blocks.num_blocks:
            node.parent.num_open_children -= 1
        node.is_attached = False

    def prune(self, node: Node[B]) -> None:
        """Detach `segment` and the runs before it while nobody needs them. Mutates the tree."""
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
        """Forget every chain. Mutates the tree; runs handed out before are detached."""
        for node in self.root.subtree():
            node.is_attached = node is self.root
        self.root = Node(None, 0, [])
        self._where.clear()

    def _split(self, node: Node[B], length: int) -> Node[B]:
        """Cut the first `length` blocks of `segment` off into a new run before it; return that."""
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
            self._where[block_hash] = upper
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
                assert self._where[block_hash] is node
                seen += 1
        assert seen == len(self._where)


def _shared_length(node: list[bytes], hashes: Sequence[bytes], offset: int) -> int:
    """Blocks that `run` and `hashes[offset:]` share; equal at a depth implies equal before it."""
    low, high = 0, min(len(node), len(hashes) - offset)
    if high and node[high - 1] == hashes[offset + high - 1]:
        return high
    while low < high:
        middle = (low + high) // 2
        if node[middle] == hashes[offset + middle]:
            low = middle + 1
        else:
            high = middle
    return low
