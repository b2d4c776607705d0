"""All free KV blocks in eviction order: a drop-in for vLLM's own free-block queue.

Free blocks are in block lists: one for blocks without content, one for unowned content, and one for
each node of the prefix tree, which outlives the node when it is disowned. The next victim is the
head of the block list with the lowest retention priority among nodes whose children have no free
blocks, so a path is evicted from its end. `use_lru` drops that rule: the order is then vLLM's.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from holdfast.cache.block_list import BlockList
from holdfast.cache.eviction_snapshot import eviction_snapshot
from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.cache.victim_ranking import Priority, VictimRanking

__all__ = ["EvictionQueue", "Priority"]

_EQUAL: Priority = (0, 0.0)
_GROUP_ID_BYTES = 4


class EvictionQueue:
    """Free KV blocks, next victim first. A pop is O(log nodes) a node, O(1) a block.

    Args:
        blocks: The blocks that are free now, in eviction order; none has content.
        num_blocks: Blocks of the whole KV cache (count); block ids are below it.
        tree: The prefix tree of the content.
        priority_of: A node's retention priority now; must be total and must not raise.
        on_evict: Receives each batch of evictions: the node, or None if unowned, and the count
            of blocks. Called when another node becomes the first, or by `settle`.

    Attributes:
        num_free_blocks: Free blocks (count); part of vLLM's interface.
        num_reserved_blocks: Free blocks of nodes with a reservation (count).
        is_lru: Whether all priorities count as equal, which is vLLM's own order.
        evicted_hash: Prefix hash of the block evicted last; None if the engine had dropped it.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        num_blocks: int,
        tree: PrefixTree[Any],
        priority_of: Callable[[Node[Any]], Priority],
        on_evict: Callable[[Node[Any] | None, int], None],
    ) -> None:
        self.num_free_blocks = 0
        self.num_reserved_blocks = 0
        self.is_lru = False
        self.evicted_hash: bytes | None = None
        self._tree = tree
        self._priority_of = priority_of
        self._on_evict = on_evict
        self._empty: BlockList[Any] = BlockList()  # blocks without content
        self._unowned: Node[Any] = Node(None, 0, [])
        self._disowned: dict[Node[Any], None] = {}
        self._node_of: list[Node[Any] | None] = [None] * num_blocks
        self._freed_at = [0] * num_blocks
        self._num_freed = 0
        self._ranking = VictimRanking(
            self._is_ready, self._priority, self.freed_at, self._note_evicted
        )
        self._empty.extend_back(blocks)
        self.num_free_blocks = self._empty.num_blocks

    # The interface of vLLM's own queue.

    def popleft(self) -> Any:
        """Remove and return the next victim.

        Raises:
            ValueError: No block is free.
        """
        if not self.num_free_blocks:
            raise ValueError("No free blocks available")
        return self.popleft_n(1)[0]

    def popleft_n(self, n: int) -> list[Any]:
        """Remove and return the next `n` victims, in eviction order."""
        assert n <= self.num_free_blocks, (n, self.num_free_blocks)
        num_empty = min(n, self._empty.num_blocks)
        taken: list[Any] = self._empty.pop_front(num_empty) if num_empty else []
        while len(taken) < n:
            self._take_from_first(n, taken)
        self.num_free_blocks -= n
        return taken

    def remove(self, block: Any) -> None:
        """Remove `block`, which is free, because a request is about to use it.

        Raises:
            RuntimeError: The block is not free.
        """
        node = self._node_of[block.block_id]
        if node is None:
            if block.prev_free_block is None and self._empty.head is not block:
                raise RuntimeError(f"block {block.block_id} is not free")
            self._empty.remove(block)
        else:
            was_head = node.free_blocks.head is block
            self._remove_from(node, block)
            if was_head:
                self._ranking.offer(node)
        self.num_free_blocks -= 1

    def append(self, block: Any) -> None:
        """Add one block that has become free."""
        self.append_n([block])

    def append_n(self, blocks: Iterable[Any]) -> None:
        """Add blocks that have become free, a path's deepest first."""
        path = blocks if isinstance(blocks, list) else list(blocks)
        first = 0
        while first < len(path):
            content = path[first].block_hash
            node = None if content is None else self._tree.locate(content[:-_GROUP_ID_BYTES])
            num_together = 1 if node is None else _num_together(node, path, first)
            part = path if num_together == len(path) else path[first : first + num_together]
            self._append_part(self._unowned if node is None else node, part)
            first += num_together

    def settle(self) -> None:
        """Report evictions since the last report; priorities are computed anew afterwards."""
        self._ranking.settle()

    def prepend_n(self, blocks: Sequence[Any]) -> None:
        """Add blocks without content, in front of all others."""
        for block in reversed(blocks):
            self._node_of[block.block_id] = None
            self._empty.push_front(block)
            self.num_free_blocks += 1

    def get_all_free_blocks(self) -> list[Any]:
        """Return every free block in eviction order as of now. Pure; O(blocks log blocks)."""
        return list(self.iter_blocks_after(None))

    def iter_blocks_after(self, cursor: Any | None) -> Iterator[Any]:
        """Yield free blocks after `cursor` in eviction order. Pure; O(blocks log blocks)."""
        ordered = self._snapshot()
        if cursor is not None:
            for block in ordered:
                if block is cursor:
                    break
        yield from ordered

    # The interface of Holdfast's runtime and scheduler.

    def num_below(self, priority_class: float, enough: int) -> int:
        """Blocks that are free for any priority of a class (count). Pure; O(nodes).

        Args:
            priority_class: Blocks of a lower class count, and those without content.
            enough: Count at which to stop.
        """
        num_blocks: int = self._empty.num_blocks
        nodes = iter(()) if self.is_lru else self._nodes()
        while num_blocks < enough and (node := next(nodes, None)) is not None:
            if self._priority(node)[0] < priority_class:
                num_blocks += node.free_blocks.num_blocks
        return num_blocks

    def rescore(self, node: Node[Any]) -> None:
        """Rank `node` anew: its priority may have changed. O(log nodes)."""
        self._ranking.offer(node)

    def redistribute(self, upper: Node[Any], deeper: Node[Any]) -> None:
        """Move free blocks to a split's shallow half. O(node length)."""
        if not deeper.free_blocks.num_blocks:
            return
        shallow = set(upper.hashes)
        moved = [
            block
            for block in deeper.free_blocks
            if block.block_hash is not None and block.block_hash[:-_GROUP_ID_BYTES] in shallow
        ]
        upper.free_blocks.is_by_age = deeper.free_blocks.is_by_age
        for block in moved:
            freed_at = self._freed_at[block.block_id]
            self._remove_from(deeper, block)
            self._append_to(upper, block, freed_at)
        self._ranking.offer(deeper)
        self._ranking.offer(upper)
        if upper.parent is not None:
            # The split took `deeper` from its children, and `upper` may have no free block.
            self._ranking.offer(upper.parent)

    def absorb(self, node: Node[Any]) -> None:
        """Join a childless node, free blocks included, to its parent. O(node length)."""
        self._ranking.settle()
        blocks = list(node.free_blocks)
        parent = self._tree.absorb(node)
        if parent is None:
            return
        joined = parent.free_blocks
        if blocks:
            head = joined.head
            is_older = head is None or self.freed_at(blocks[-1]) < self.freed_at(head)
            joined.is_by_age &= node.free_blocks.is_by_age and is_older
        for block in reversed(blocks):
            node.free_blocks.remove(block)
            joined.push_front(block)
            self._node_of[block.block_id] = parent
        if blocks:
            self._note_opened(parent, len(blocks))
            if self.is_lru:
                self._sort(parent)
        self._ranking.offer(parent)

    def disown(self, node: Node[Any]) -> None:
        """Evict a childless node's free blocks first, and forget the node. O(node length)."""
        self._ranking.settle()
        block_list, parent = node.free_blocks, node.parent
        if node.num_reservations:
            self.num_reserved_blocks -= block_list.num_blocks
        node.free_blocks = BlockList()
        if block_list.num_blocks and parent is not None:
            self._close(parent)
        self._tree.detach(node)
        if not block_list.num_blocks:
            return
        # A detached node of their own keeps the blocks in the order in which they became free.
        disowned: Node[Any] = Node(None, node.start, [])
        disowned.free_blocks = block_list
        self._disowned[disowned] = None
        for block in block_list:
            self._node_of[block.block_id] = disowned
        self._ranking.offer(disowned)

    def reserve(self, node: Node[Any]) -> None:
        """Count one more reservation of `node`."""
        node.num_reservations += 1
        if node.num_reservations == 1:
            self.num_reserved_blocks += node.free_blocks.num_blocks

    def release(self, node: Node[Any]) -> None:
        """Count one reservation of `node` less."""
        node.num_reservations -= 1
        if node.num_reservations == 0:
            self.num_reserved_blocks -= node.free_blocks.num_blocks

    def freed_at(self, block: Any) -> int:
        """Return when `block` last became free with content, as an increasing count. Pure."""
        block_id: int = block.block_id
        return self._freed_at[block_id]

    def forget_content(self) -> None:
        """Drop all content, as the engine did, in the same order. O(blocks log blocks)."""
        self._ranking.settle()
        blocks = self.get_all_free_blocks()
        for node in self._nodes():
            node.free_blocks = BlockList()
            node.num_open_children = 0
        self._disowned.clear()
        self._ranking.clear()
        self._empty = BlockList()
        self.num_reserved_blocks = 0
        self._node_of = [None] * len(self._node_of)
        self._empty.extend_back(blocks)

    def use_lru(self) -> None:
        """Evict in vLLM's own order from now on, by when blocks became free. O(blocks)."""
        self._ranking.clear()
        self.is_lru = True
        for node in self._nodes():
            self._sort(node)
            self._ranking.offer(node)

    # Private.

    def _nodes(self) -> Iterator[Node[Any]]:
        """Yield every node that may have free blocks."""
        yield self._unowned
        yield from self._disowned
        yield from self._tree.root.subtree()

    def _sort(self, node: Node[Any]) -> None:
        blocks = sorted(node.free_blocks, key=self.freed_at)
        node.free_blocks = BlockList()
        node.free_blocks.extend_back(blocks)

    def _append_to(self, node: Node[Any], block: Any, freed_at: int) -> None:
        self._freed_at[block.block_id] = freed_at
        self._node_of[block.block_id] = node
        node.free_blocks.push_back(block)
        self._note_opened(node, 1)
        if node.num_reservations:
            self.num_reserved_blocks += 1

    def _append_part(self, node: Node[Any], part: list[Any]) -> None:
        """Add blocks of one node, deepest first."""
        node_of, freed_at, num_freed = self._node_of, self._freed_at, self._num_freed
        for block in part:
            num_freed += 1
            block_id = block.block_id
            freed_at[block_id] = num_freed
            node_of[block_id] = node
        self._num_freed = num_freed
        node.free_blocks.extend_back(part)
        self.num_free_blocks += len(part)
        self._note_opened(node, len(part))
        if node.num_reservations:
            self.num_reserved_blocks += len(part)
        self._ranking.offer(node)

    def _note_opened(self, node: Node[Any], num_added: int) -> None:
        if node.parent is not None and node.free_blocks.num_blocks == num_added:
            node.parent.num_open_children += 1

    def _remove_from(self, node: Node[Any], block: Any) -> None:
        self._node_of[block.block_id] = None
        block_list = node.free_blocks
        block_list.remove(block)
        if node.num_reservations:
            self.num_reserved_blocks -= 1
        if not block_list.num_blocks:
            self._note_emptied(node)

    def _note_emptied(self, node: Node[Any]) -> None:
        self._disowned.pop(node, None)
        if node.parent is not None:
            self._close(node.parent)

    def _close(self, parent: Node[Any]) -> None:
        parent.num_open_children -= 1
        if not parent.num_open_children:
            self._ranking.offer(parent)

    def _is_ready(self, node: Node[Any]) -> bool:
        is_end = self.is_lru or not node.num_open_children
        return is_end and node.free_blocks.head is not None

    def _priority(self, node: Node[Any]) -> Priority:
        if self.is_lru or node.parent is None:
            return _EQUAL
        return self._priority_of(node)

    def _take_from_first(self, n: int, taken: list[Any]) -> None:
        node, num_wanted = self._ranking.first(n - len(taken))
        block_list = node.free_blocks
        for block in block_list.pop_front(num_wanted):
            self._node_of[block.block_id] = None
            taken.append(block)
        last = taken[-1].block_hash
        self.evicted_hash = None if last is None else last[:-_GROUP_ID_BYTES]
        if node.num_reservations:
            self.num_reserved_blocks -= num_wanted
        self._ranking.note_taken(num_wanted)
        if not block_list.num_blocks:
            self._note_emptied(node)
            self._ranking.settle()
            self._tree.prune(node)

    def _note_evicted(self, node: Node[Any], num_blocks: int) -> None:
        self._on_evict(None if node.parent is None else node, num_blocks)

    def _snapshot(self) -> Iterator[Any]:
        yield from self._empty
        yield from eviction_snapshot(
            self._nodes(), self._priority, self.freed_at, children_first=not self.is_lru
        )

    def check_integrity(self) -> None:
        """Assert that block lists, counts and ranking agree; for tests. O(blocks)."""
        num_free = self._empty.num_blocks
        num_reserved = 0
        for node in self._nodes():
            blocks = list(node.free_blocks)
            assert len(blocks) == node.free_blocks.num_blocks
            for block in blocks:
                assert self._node_of[block.block_id] is node
            num_free += len(blocks)
            num_reserved += len(blocks) if node.num_reservations else 0
            if self._is_ready(node):
                key = self._ranking.key_of(node)
                assert key is not None and key[2] == self._freed_at[blocks[0].block_id]
        assert all(node.free_blocks.num_blocks for node in self._disowned)
        assert num_free == self.num_free_blocks
        assert num_reserved == self.num_reserved_blocks


def _num_together(node: Node[Any], path: list[Any], first: int) -> int:
    """Count blocks of `path`, from `first` on, that are surely `node`'s; at least one.

    The path is deepest first and a hash stands for its whole prefix: if the first block has the
    node's last hash and the block one node length on has the fitting one, so have all between.
    """
    hashes = node.hashes
    most = min(len(hashes), len(path) - first)
    if path[first].block_hash[:-_GROUP_ID_BYTES] != hashes[-1]:
        return 1
    last = path[first + most - 1].block_hash
    return most if last is not None and last[:-_GROUP_ID_BYTES] == hashes[-most] else 1
