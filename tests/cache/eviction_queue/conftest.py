"""A small cache that uses an eviction queue as an engine and a runtime do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.cache.eviction_queue import EvictionQueue, Priority
from holdfast.cache.prefix_tree import Node, PrefixTree

GROUP = b"\0\0\0\0"


@dataclass(eq=False)
class FakeBlock:
    """A KV block with content `block_hash`, or without."""

    block_id: int
    block_hash: bytes | None = None
    num_users: int = 0
    prev_free_block: object | None = None
    next_free_block: object | None = None


def hashes_of(text: str | bytes) -> list[bytes]:
    """A hash for each block of a prompt, one letter a block: the prefix itself."""
    tokens = text.encode() if isinstance(text, str) else text
    return [tokens[: i + 1] for i in range(len(tokens))]


class Cache:
    """An eviction queue over a few blocks, used as an engine and a runtime use it.

    Nodes that are not in `priorities` have priority (2, 1.0).
    """

    def __init__(self, num_blocks: int) -> None:
        self.blocks = [FakeBlock(i) for i in range(num_blocks)]
        self.tree: PrefixTree[Any] = PrefixTree()
        self.priorities: dict[Node[Any], Priority] = {}
        self.num_rescores = 0
        self.evicted: list[tuple[Node[Any] | None, int]] = []
        self.queue = EvictionQueue(
            self.blocks,
            num_blocks,
            self.tree,
            self.priority_of,
            lambda node, count: self.evicted.append((node, count)),
        )
        self.cached: dict[bytes, FakeBlock] = {}

    def priority_of(self, node: Node[Any]) -> Priority:
        self.num_rescores += 1
        return self.priorities.get(node, (2, 1.0))

    def insert(self, text: str | bytes) -> Node[Any]:
        """Add the prompt to the tree, as when a turn arrives."""
        hashes = hashes_of(text)
        tail, upper = self.tree.insert(hashes)
        if upper is not None:
            following = hashes[upper.end] if len(hashes) > upper.end else None
            deeper = next(node for key, node in upper.children.items() if key != following)
            self.queue.redistribute(upper, deeper)
        return tail

    def hits(self, text: str | bytes) -> list[FakeBlock]:
        found: list[FakeBlock] = []
        for block_hash in hashes_of(text):
            block = self.cached.get(block_hash)
            if block is None:
                break
            found.append(block)
        return found

    def use(self, text: str | bytes) -> list[FakeBlock]:
        """Take blocks for a prompt, cached ones where there are any, and fill the rest."""
        found = self.hits(text)
        for block in found:
            if not block.num_users:
                self.queue.remove(block)
        blocks = found + self.take(len(text) - len(found))
        for block in found:
            block.num_users += 1
        for block, block_hash in zip(blocks, hashes_of(text), strict=True):
            if block.block_hash is None:
                block.block_hash = block_hash + GROUP
                self.cached[block_hash] = block
        return blocks

    def take(self, num_blocks: int) -> list[FakeBlock]:
        blocks: list[FakeBlock] = self.queue.popleft_n(num_blocks)
        for block in blocks:
            self.lose(block)
            block.num_users = 1
        return blocks

    def lose(self, block: FakeBlock) -> None:
        """Drop the block's content, as when a block is reused or found invalid."""
        if block.block_hash is not None:
            if self.cached.get(block.block_hash[:-4]) is block:
                del self.cached[block.block_hash[:-4]]
            block.block_hash = None

    def free(self, blocks: Iterable[FakeBlock]) -> None:
        """Free a request's blocks, given from the start of the prompt."""
        idle = []
        for block in reversed([*blocks]):
            block.num_users -= 1
            if not block.num_users:
                idle.append(block)
        self.queue.prepend_n([block for block in idle if block.block_hash is None])
        self.queue.append_n([block for block in idle if block.block_hash is not None])

    def turn(self, text: str, priority: Priority | None = None, owner: object = None) -> Node[Any]:
        """Insert a prompt, compute it and free its blocks."""
        node = self.insert(text)
        node.tails.add(text if owner is None else owner)
        self.free(self.use(text))
        if priority is not None:
            self.set_priority(node, priority)
        return node

    def set_priority(self, node: Node[Any], priority: Priority) -> None:
        self.priorities[node] = priority
        self.queue.rescore(node)

    def contents(self, blocks: Iterable[Any]) -> list[str]:
        return [(b.block_hash or b"-" + GROUP)[:-4].decode() for b in blocks]

    def known_depth(self, text: str) -> int:
        """Length of the prompt's known prefix (blocks)."""
        return self.tree.match(hashes_of(text)).depth

    def order(self) -> list[str]:
        """Contents of free blocks, next victim first; those without content left out."""
        return [text for text in self.contents(self.queue.get_all_free_blocks()) if text != "-"]

    def check(self) -> None:
        self.queue.check_integrity()
        self.tree.check_integrity()


CacheMaker = Callable[[int], Cache]


@pytest.fixture
def make_cache() -> CacheMaker:
    """Makes a cache of a given number of blocks."""
    return Cache
