"""A model of an engine's KV cache, kept from the requests that it was sent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.cache.resident_prefix import resident_length

__all__ = ["CacheModel", "ModelBlock"]

_GROUP_ID = bytes(4)  # after each hash, as in vLLM's blocks


class ModelBlock:
    """A block of the model, with what `EvictionQueue` asks of vLLM's.

    Attributes:
        block_id: Its number.
        block_hash: Its content, with a group id after it; None without content.
        num_users: Requests that use it (count); it is free at 0.
        prev_free_block: Link of its block list.
        next_free_block: Link of its block list.
    """

    __slots__ = ("block_hash", "block_id", "next_free_block", "num_users", "prev_free_block")

    def __init__(self, block_id: int) -> None:
        self.block_id = block_id
        self.block_hash: bytes | None = None
        self.num_users = 0
        self.prev_free_block: ModelBlock | None = None
        self.next_free_block: ModelBlock | None = None


class CacheModel:
    """vLLM's KV cache in larger blocks, the least recently used evicted first.

    A request takes all its blocks when it starts, its expected output included. Where the engine
    found space that the model has not, the request's last blocks are left out.

    Args:
        num_blocks: Blocks (count, >= 1).
        tree: The paths of all sessions.

    Attributes:
        queue: The free blocks, in vLLM's own order of eviction.
    """

    def __init__(self, num_blocks: int, tree: PrefixTree[Any]) -> None:
        self._blocks = [ModelBlock(number) for number in range(num_blocks)]
        self._cached: dict[bytes, ModelBlock] = {}
        self._withheld: list[ModelBlock] = []
        self.queue = EvictionQueue(self._blocks, num_blocks, tree, _equal, _ignore)
        self.queue.use_lru()

    @property
    def num_blocks(self) -> int:
        """Blocks that requests may use (count)."""
        return len(self._blocks) - len(self._withheld)

    def resize(self, num_blocks: int) -> None:
        """Let requests use so many blocks, as far as the others are free. Mutates."""
        surplus = self.num_blocks - min(num_blocks, len(self._blocks))
        if surplus > 0:
            self._withheld += self._take(surplus)
        elif surplus < 0:
            returned = self._withheld[surplus:]
            del self._withheld[surplus:]
            self.queue.prepend_n(returned)

    def num_resident(self, hashes: Sequence[bytes], guess: int = 0) -> int:
        """Leading blocks of a prompt that are in the cache (count). Pure; O(log blocks).

        About right where `forget` dropped blocks that other prompts begin with.
        """
        cached = self._cached
        return resident_length(len(hashes), lambda index: hashes[index] in cached, guess)

    def start(self, hashes: Sequence[bytes], num_output_blocks: int) -> list[ModelBlock]:
        """Give a request its blocks: what is resident, and others for the rest. Mutates."""
        found = takewhile(lambda block: block is not None, map(self._cached.get, hashes))
        blocks = [block for block in found if block is not None]
        for block in blocks:
            if not block.num_users:
                self.queue.remove(block)
            block.num_users += 1
        missing = hashes[len(blocks) :]
        new = self._take(len(missing) + num_output_blocks)
        for block, key in zip(new, missing, strict=False):
            if key not in self._cached:  # else a second copy, as vLLM makes them
                block.block_hash = key + _GROUP_ID
                self._cached[key] = block
        for block in new:
            block.num_users = 1
        return blocks + new

    def end(self, blocks: Sequence[ModelBlock]) -> None:
        """Free a request's blocks, its last first. Mutates."""
        for block in blocks:
            block.num_users -= 1
        free = [block for block in reversed(blocks) if not block.num_users]
        self.queue.prepend_n([block for block in free if block.block_hash is None])
        self.queue.append_n([block for block in free if block.block_hash is not None])

    def forget(self, hashes: Sequence[bytes], num_kept: int) -> None:
        """Drop a prompt's blocks after its first ones: they are evicted. Mutates.

        Those in use stay: the engine cannot have evicted them.
        """
        dropped = []
        for key in hashes[num_kept:]:
            block = self._cached.get(key)
            if block is not None and not block.num_users:
                self.queue.remove(block)
                del self._cached[key]
                block.block_hash = None
                dropped.append(block)
        self.queue.prepend_n(dropped)

    def _take(self, num_blocks: int) -> list[ModelBlock]:
        """Take free blocks, at most all of them, and drop their content."""
        taken: list[ModelBlock] = self.queue.popleft_n(min(num_blocks, self.queue.num_free_blocks))
        for block in taken:
            if block.block_hash is not None:
                del self._cached[block.block_hash[: -len(_GROUP_ID)]]
                block.block_hash = None
        self.queue.settle()
        return taken


def _equal(node: Node[Any]) -> tuple[float, float]:
    """Priority of a node: all are equal, so that age decides. Pure."""
    del node
    return 0.0, 0.0


def _ignore(node: Node[Any] | None, num_blocks: int) -> None:
    """Take no note of an eviction."""
