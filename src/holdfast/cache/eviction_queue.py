"""The engine's free blocks in order of worth: a drop-in for vLLM's own free-block queue.

Blocks stand in lanes: one for blocks without content, one for content nobody is known to want, and
one for each run of the chain tree, which it keeps after the run is disowned. The next victim is the
head of the cheapest lane whose continuations hold no free blocks, so a chain is always given up
from its end. `make_worth_equal` drops that rule too: the order is then exactly vLLM's.

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
    """Free KV blocks, cheapest first. Pops are O(log lanes) a lane and O(1) a block.

    Args:
        blocks: The blocks that are free now, in eviction order; none has content.
        num_blocks: Blocks of the whole pool (count), ids below it.
        tree: Who uses which content.
        worth_of: Priority of a run's free blocks now; must be total and must not raise.
        on_evict: Told of each batch of content given up: the run, or None if unowned, and the
            count. Called when another run is the cheapest, or by `settle`.

    Attributes:
        num_free_blocks: Free blocks (count); part of vLLM's interface.
        num_held_blocks: Free blocks in runs of sessions that hold a place (count).
        is_worth_equal: Whether every run counts as worth the same, which is vLLM's own order.
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
        self._tree = tree
        self._priority_of = priority_of
        self._on_evict = on_evict
        self._spare: BlockList[Any] = BlockList()
        self._stray: Node[Any] = Node(None, 0, [])
        self._disowned: dict[Node[Any], None] = {}
        self._home: list[Node[Any] | None] = [None] * num_blocks
        self._sequence = [0] * num_blocks
        self._clock = 0
        self._order = VictimRanking(self._is_ready, self._priority, self.age_of, self._note_evicted)
        self._spare.extend_back(blocks)
        self.num_free_blocks = self._spare.num_blocks

    # What vLLM calls.

    def popleft(self) -> Any:
        """Take the cheapest free block.

        Raises:
            ValueError: No block is free.
        """
        if not self.num_free_blocks:
            raise ValueError("No free blocks available")
        return self.popleft_n(1)[0]

    def popleft_n(self, n: int) -> list[Any]:
        """Take the `n` cheapest free blocks, cheapest first."""
        assert n <= self.num_free_blocks, (n, self.num_free_blocks)
        num_spare = min(n, self._spare.num_blocks)
        taken: list[Any] = self._spare.pop_front(num_spare) if num_spare else []
        while len(taken) < n:
            self._take_from_cheapest(n, taken)
        self.num_free_blocks -= n
        return taken

    def remove(self, block: Any) -> None:
        """Take out `block`, which is free, because it is about to be used again.

        Raises:
            RuntimeError: The block is not free.
        """
        home = self._home[block.block_id]
        if home is None:
            if block.prev_free_block is None and self._spare.head is not block:
                raise RuntimeError(f"block {block.block_id} is not free")
            self._spare.remove(block)
        else:
            was_head = home.free_blocks.head is block
            self._remove_from(home, block)
            if was_head:
                self._order.offer(home)
        self.num_free_blocks -= 1

    def append(self, block: Any) -> None:
        """Add one block that has become free."""
        self.append_n([block])

    def append_n(self, blocks: Iterable[Any]) -> None:
        """Add blocks that have become free, a chain's deepest first."""
        chain = blocks if isinstance(blocks, list) else list(blocks)
        first = 0
        while first < len(chain):
            content = chain[first].block_hash
            home = None if content is None else self._tree.locate(content[:-_GROUP_ID_BYTES])
            num_together = 1 if home is None else _num_together(home, chain, first)
            part = chain if num_together == len(chain) else chain[first : first + num_together]
            self._append_part(self._stray if home is None else home, part)
            first += num_together

    def settle(self) -> None:
        """Report what was taken since the last report; worths are asked for anew afterwards."""
        self._order.settle()

    def prepend_n(self, blocks: Sequence[Any]) -> None:
        """Add blocks without content, to be used before all others."""
        for block in reversed(blocks):
            self._home[block.block_id] = None
            self._spare.push_front(block)
            self.num_free_blocks += 1

    def get_all_free_blocks(self) -> list[Any]:
        """Every free block in eviction order as of now. O(blocks log blocks); pure."""
        return list(self.iter_blocks_after(None))

    def iter_blocks_after(self, cursor: Any | None) -> Iterator[Any]:
        """Free blocks after `cursor` in eviction order as of now. O(blocks log blocks); pure."""
        ordered = self._in_order()
        if cursor is not None:
            for block in ordered:
                if block is cursor:
                    break
        yield from ordered

    # What Holdfast's own scheduler calls.

    def rescore(self, node: Node[Any]) -> None:
        """Take note that the worth of `segment` may have changed. O(log lanes)."""
        self._order.offer(node)

    def redistribute(self, upper: Node[Any], deeper: Node[Any]) -> None:
        """After a split of a run: move the shallow half's free blocks to its own lane. O(run)."""
        if not deeper.free_blocks.num_blocks:
            return
        shallow = set(upper.hashes)
        moved = [
            block
            for block in deeper.free_blocks
            if block.block_hash is not None and block.block_hash[:-_GROUP_ID_BYTES] in shallow
        ]
        for block in moved:
            sequence = self._sequence[block.block_id]
            self._remove_from(deeper, block)
            self._append_to(upper, block, sequence)
        self._order.offer(deeper)
        self._order.offer(upper)
        if upper.parent is not None:
            # The split took `deeper` from its children, and `upper` may have no free block.
            self._order.offer(upper.parent)

    def absorb(self, node: Node[Any]) -> None:
        """Join a childless run, free blocks included, to the run before it if possible. O(run)."""
        self._order.settle()
        blocks = list(node.free_blocks)
        parent = self._tree.absorb(node)
        if parent is None:
            return
        for block in reversed(blocks):
            node.free_blocks.remove(block)
            parent.free_blocks.push_front(block)
            self._home[block.block_id] = parent
        if blocks:
            self._note_opened(parent, len(blocks))
            if self.is_lru:
                self._sort(parent)
        self._order.offer(parent)

    def disown(self, node: Node[Any]) -> None:
        """Make the free blocks of a childless run the first to go, and forget the run. O(run)."""
        self._order.settle()
        block_list, parent = node.free_blocks, node.parent
        if node.num_reservations:
            self.num_reserved_blocks -= block_list.num_blocks
        node.free_blocks = BlockList()
        if block_list.num_blocks and parent is not None:
            self._close(parent)
        self._tree.detach(node)
        if not block_list.num_blocks:
            return
        # A run of their own keeps the blocks in the order in which they became free.
        home: Node[Any] = Node(None, node.start, [])
        home.free_blocks = block_list
        self._disowned[home] = None
        for block in block_list:
            self._home[block.block_id] = home
        self._order.offer(home)

    def reserve(self, node: Node[Any]) -> None:
        """Count one more place-holder on `segment`."""
        node.num_reservations += 1
        if node.num_reservations == 1:
            self.num_reserved_blocks += node.free_blocks.num_blocks

    def release(self, node: Node[Any]) -> None:
        """Count one place-holder less on `segment`."""
        node.num_reservations -= 1
        if node.num_reservations == 0:
            self.num_reserved_blocks -= node.free_blocks.num_blocks

    def age_of(self, block: Any) -> int:
        """When `block` last became free with content, as an increasing count. Pure."""
        block_id: int = block.block_id
        return self._sequence[block_id]

    def forget_content(self) -> None:
        """Make every free block spare: the engine dropped all content. O(blocks log blocks)."""
        self._order.settle()
        blocks = self.get_all_free_blocks()
        for node in self._segments():
            node.free_blocks = BlockList()
            node.num_open_children = 0
        self._disowned.clear()
        self._order.clear()
        self._spare = BlockList()
        self.num_reserved_blocks = 0
        self._home = [None] * len(self._home)
        self._spare.extend_back(blocks)

    def use_lru(self) -> None:
        """From now on evict in vLLM's own order, by when blocks became free. O(blocks)."""
        self._order.clear()
        self.is_lru = True
        for node in self._segments():
            self._sort(node)
            self._order.offer(node)

    # Inside.

    def _segments(self) -> Iterator[Node[Any]]:
        """Every run that may have free blocks."""
        yield self._stray
        yield from self._disowned
        yield from self._tree.root.subtree()

    def _sort(self, node: Node[Any]) -> None:
        blocks = sorted(node.free_blocks, key=self.age_of)
        node.free_blocks = BlockList()
        node.free_blocks.extend_back(blocks)

    def _append_to(self, home: Node[Any], block: Any, sequence: int) -> None:
        self._sequence[block.block_id] = sequence
        self._home[block.block_id] = home
        home.free_blocks.push_back(block)
        self._note_opened(home, 1)
        if home.num_reservations:
            self.num_reserved_blocks += 1

    def _append_part(self, home: Node[Any], part: list[Any]) -> None:
        """Add blocks of one run, deepest first."""
        homes, sequences, clock = self._home, self._sequence, self._clock
        for block in part:
            clock += 1
            number = block.block_id
            sequences[number] = clock
            homes[number] = home
        self._clock = clock
        home.free_blocks.extend_back(part)
        self.num_free_blocks += len(part)
        self._note_opened(home, len(part))
        if home.num_reservations:
            self.num_reserved_blocks += len(part)
        self._order.offer(home)

    def _note_opened(self, home: Node[Any], num_added: int) -> None:
        if home.parent is not None and home.free_blocks.num_blocks == num_added:
            home.parent.num_open_children += 1

    def _remove_from(self, home: Node[Any], block: Any) -> None:
        self._home[block.block_id] = None
        block_list = home.free_blocks
        block_list.remove(block)
        if home.num_reservations:
            self.num_reserved_blocks -= 1
        if not block_list.num_blocks:
            self._note_emptied(home)

    def _note_emptied(self, home: Node[Any]) -> None:
        self._disowned.pop(home, None)
        if home.parent is not None:
            self._close(home.parent)

    def _close(self, parent: Node[Any]) -> None:
        parent.num_open_children -= 1
        if not parent.num_open_children:
            self._order.offer(parent)

    def _is_ready(self, node: Node[Any]) -> bool:
        is_last = self.is_lru or not node.num_open_children
        return is_last and node.free_blocks.head is not None

    def _priority(self, node: Node[Any]) -> Priority:
        if self.is_lru or node.parent is None:
            return _EQUAL
        return self._priority_of(node)

    def _take_from_cheapest(self, n: int, taken: list[Any]) -> None:
        node, num_wanted = self._order.cheapest(n - len(taken))
        block_list = node.free_blocks
        for block in block_list.pop_front(num_wanted):
            self._home[block.block_id] = None
            taken.append(block)
        if node.num_reservations:
            self.num_reserved_blocks -= num_wanted
        self._order.took(num_wanted)
        if not block_list.num_blocks:
            self._note_emptied(node)
            self._order.settle()
            self._tree.prune(node)

    def _note_evicted(self, node: Node[Any], num_blocks: int) -> None:
        self._on_evict(None if node.parent is None else node, num_blocks)

    def _in_order(self) -> Iterator[Any]:
        yield from self._spare
        yield from eviction_snapshot(
            self._segments(), self._priority, self.age_of, keeps_chains=not self.is_lru
        )

    def check_integrity(self) -> None:
        """Assert that lanes, counts and the heap agree; for tests. O(blocks)."""
        num_free = self._spare.num_blocks
        num_reservations = 0
        for node in self._segments():
            blocks = list(node.free_blocks)
            assert len(blocks) == node.free_blocks.num_blocks
            for block in blocks:
                assert self._home[block.block_id] is node
            num_free += len(blocks)
            num_reservations += len(blocks) if node.num_reservations else 0
            if self._is_ready(node):
                key = self._order.key_of(node)
                assert key is not None and key[2] == self._sequence[blocks[0].block_id]
        assert all(node.free_blocks.num_blocks for node in self._disowned)
        assert num_free == self.num_free_blocks
        assert num_reservations == self.num_reserved_blocks


def _num_together(home: Node[Any], chain: list[Any], first: int) -> int:
    """Blocks of a chain, from `first` on, that surely are of `home`; at least one.

    A chain is given deepest first and a hash stands for its whole prefix: if the deepest and the
    last of a run's length are where they should be, so are all between.
    """
    hashes = home.hashes
    most = min(len(hashes), len(chain) - first)
    if chain[first].block_hash[:-_GROUP_ID_BYTES] != hashes[-1]:
        return 1
    last = chain[first + most - 1].block_hash
    return most if last is not None and last[:-_GROUP_ID_BYTES] == hashes[-most] else 1
