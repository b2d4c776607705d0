"""A doubly linked list of free KV blocks in eviction order.

The links are attributes of the blocks, as in vLLM's own queue: no Python object is made per block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["Block", "BlockList"]


class Block(Protocol):
    """A KV block that carries the links of a block list."""

    block_id: int
    prev_free_block: object | None
    next_free_block: object | None


B = TypeVar("B", bound=Block)


class BlockList(Generic[B]):
    """Free blocks, next victim first. Every operation is O(1) a block.

    Attributes:
        head: Next victim, or None.
        tail: Last victim, or None.
        num_blocks: Blocks in the list (count).
        is_by_age: Whether the blocks stand in the order in which they became free; its owner's
            note, which the list itself does not read.
    """

    __slots__ = ("head", "is_by_age", "num_blocks", "tail")

    def __init__(self) -> None:
        self.head: B | None = None
        self.tail: B | None = None
        self.num_blocks = 0
        self.is_by_age = True

    def push_back(self, block: B) -> None:
        """Make `block` the last victim. Mutates the list and the block's links."""
        tail = self.tail
        block.prev_free_block = tail
        block.next_free_block = None
        if tail is None:
            self.head = block
        else:
            tail.next_free_block = block
        self.tail = block
        self.num_blocks += 1

    def extend_back(self, blocks: Sequence[B]) -> None:
        """Make `blocks` the last victims, in their order. Mutates list and links."""
        tail = self.tail
        for block in blocks:
            block.prev_free_block = tail
            if tail is None:
                self.head = block
            else:
                tail.next_free_block = block
            tail = block
        if tail is not None:
            tail.next_free_block = None
        self.tail = tail
        self.num_blocks += len(blocks)

    def pop_front(self, num_blocks: int) -> list[B]:
        """Remove and return the next `num_blocks` victims, which must exist. Mutates."""
        taken: list[B] = []
        block = self.head
        for _ in range(num_blocks):
            assert block is not None
            taken.append(block)
            after: B | None = block.next_free_block  # type: ignore[assignment]
            block.prev_free_block = block.next_free_block = None
            block = after
        self.head = block
        if block is None:
            self.tail = None
        else:
            block.prev_free_block = None
        self.num_blocks -= num_blocks
        return taken

    def push_front(self, block: B) -> None:
        """Make `block` the next victim. Mutates the list and the block's links."""
        head = self.head
        block.next_free_block = head
        block.prev_free_block = None
        if head is None:
            self.tail = block
        else:
            head.prev_free_block = block
        self.head = block
        self.num_blocks += 1

    def remove(self, block: B) -> None:
        """Remove `block`, which must be in this list. Mutates list and links."""
        before: B | None = block.prev_free_block  # type: ignore[assignment]
        after: B | None = block.next_free_block  # type: ignore[assignment]
        if before is None:
            self.head = after
        else:
            before.next_free_block = after
        if after is None:
            self.tail = before
        else:
            after.prev_free_block = before
        block.prev_free_block = block.next_free_block = None
        self.num_blocks -= 1

    def __iter__(self) -> Iterator[B]:
        """Yield blocks in eviction order; the block just yielded may be removed."""
        block = self.head
        while block is not None:
            after: B | None = block.next_free_block  # type: ignore[assignment]
            yield block
            block = after
