"""The eviction queue against an exhaustive search for the next victim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.cache.eviction_queue import EvictionQueue, Priority
from holdfast.cache.prefix_tree import Node

if TYPE_CHECKING:
    from tests.cache.eviction_queue.conftest import Cache, CacheMaker, FakeBlock

NUM_BLOCKS = 12


def expected_order(queue: EvictionQueue, priorities: dict[Node[Any], Priority]) -> list[Any]:
    """Free blocks in eviction order by exhaustive search for each victim."""
    empty = [*queue._empty]
    block_lists = {
        node: [*node.free_blocks] for node in queue._nodes() if node.free_blocks.num_blocks
    }
    order = []
    while block_lists:
        ready = [
            node
            for node in block_lists
            if not any(c in block_lists for c in node.children.values())
        ]

        def rank(node: Node[Any]) -> tuple[Priority, int]:
            is_owned = node.parent is not None
            priority = priorities.get(node, (2, 1.0)) if is_owned else (0, 0.0)
            return priority, queue.freed_at(block_lists[node][0])

        victim = min(ready, key=rank)
        order.append(block_lists[victim].pop(0))
        if not block_lists[victim]:
            del block_lists[victim]
    return empty + order


PROMPTS = st.lists(st.sampled_from(b"ab"), max_size=5).map(bytes)
PRIORITIES = st.tuples(st.integers(1, 2), st.sampled_from([0.0, 0.5, 2.0]))


class CacheMachine(RuleBasedStateMachine):
    """An engine's requests and a runtime's priorities, against an exhaustive search."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache = cache
        self.queue = self.cache.queue
        self.running: list[tuple[bytes, Node[Any], list[FakeBlock]]] = []
        self.owners: list[tuple[Node[Any], object]] = []
        self.reserved: list[tuple[Node[Any], int]] = []
        self.num_evicted = 0

    def nodes(self) -> list[Node[Any]]:
        return [s for s in self.cache.tree.root.subtree() if s.parent is not None]

    def disown(self, node: Node[Any]) -> None:
        while (
            node.parent is not None
            and node.is_attached
            and not node.children
            and not node.is_endpoint
            and not node.num_reservations
        ):
            parent = node.parent
            self.queue.disown(node)
            node = parent

    @rule(tokens=PROMPTS)
    def begin(self, tokens: bytes) -> None:
        hits = self.cache.hits(tokens)
        num_idle_hits = sum(not block.num_users for block in hits)
        num_new = len(tokens) - len(hits)
        if num_new > self.queue.num_free_blocks - num_idle_hits:
            return
        node = self.cache.insert(tokens)
        if tokens:
            owner = object()
            node.tails.add(owner)
            self.owners.append((node, owner))
        expected = [b for b in expected_order(self.queue, self.cache.priorities) if b not in hits]
        self.num_evicted += max(0, num_new - self.queue._empty.num_blocks)
        blocks = self.cache.use(tokens)
        if not hits:
            assert blocks == expected[:num_new]
        self.running.append((tokens, node, blocks))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), num_partial=st.integers(0, 1))
    def finish(self, data: st.DataObject, num_partial: int) -> None:
        _, _, blocks = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if num_partial <= self.queue.num_free_blocks:
            self.num_evicted += max(0, num_partial - self.queue._empty.num_blocks)
            blocks += self.cache.take(num_partial)
        self.cache.free(blocks)

    @rule()
    def settle(self) -> None:
        self.queue.settle()
        assert sum(count for _, count in self.cache.evicted) == self.num_evicted

    @precondition(lambda self: self.nodes())
    @rule(data=st.data(), priority=PRIORITIES)
    def set_priority(self, data: st.DataObject, priority: Priority) -> None:
        self.cache.set_priority(data.draw(st.sampled_from(self.nodes())), priority)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def reserve(self, data: st.DataObject) -> None:
        node, _ = data.draw(st.sampled_from(self.owners))
        for step in node.path():
            self.queue.reserve(step)
        self.reserved.append((node, 1))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        node, _ = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        for step in node.path():
            self.queue.release(step)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        node, owner = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        node.tails.discard(owner)
        if not any(node is reserved for reserved, _ in self.reserved):
            self.disown(node)

    @precondition(lambda self: self.nodes())
    @rule(data=st.data())
    def absorb(self, data: st.DataObject) -> None:
        used = {id(node) for node, _ in self.owners} | {id(node) for node, _ in self.reserved}
        nodes = [node for node in self.nodes() if id(node) not in used]
        if nodes:
            self.queue.absorb(data.draw(st.sampled_from(nodes)))

    @precondition(lambda self: not self.running)
    @rule()
    def drop_all_content(self) -> None:
        order = self.queue.get_all_free_blocks()
        for block in self.cache.blocks:
            self.cache.lose(block)
        self.queue.forget_content()
        self.check_reserved()
        assert self.queue.get_all_free_blocks() == order
        self.cache.tree.clear()
        self.owners.clear()
        self.reserved.clear()

    @invariant()
    def order_equals_the_search(self) -> None:
        expected = expected_order(self.queue, self.cache.priorities)
        assert self.queue.get_all_free_blocks() == expected

    @invariant()
    def every_free_block_is_there_once(self) -> None:
        free = {block.block_id for block in self.queue.get_all_free_blocks()}
        assert free == {b.block_id for b in self.cache.blocks if not b.num_users}
        assert self.queue.num_free_blocks == len(free)

    @invariant()
    def check_reserved(self) -> None:
        nodes = {step for node, _ in self.reserved for step in node.path()}
        assert self.queue.num_reserved_blocks == sum(node.free_blocks.num_blocks for node in nodes)

    @invariant()
    def all_is_consistent(self) -> None:
        self.cache.check()


class StrictCacheMachine(CacheMachine):
    """No content is lost while free: then no victim has a resident extension."""

    @invariant()
    def paths_are_evicted_from_their_ends(self) -> None:
        order = [b.block_hash[:-4] for b in self.queue.get_all_free_blocks() if b.block_hash]
        for i, earlier in enumerate(order):
            assert not any(later != earlier and later.startswith(earlier) for later in order[i:])


class LossyCacheMachine(CacheMachine):
    """Content may be lost while its block is free or in use."""

    @rule(block_id=st.integers(0, NUM_BLOCKS - 1))
    def lose(self, block_id: int) -> None:
        self.cache.lose(self.cache.blocks[block_id])


SETTINGS = settings(max_examples=80, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("machine", [StrictCacheMachine, LossyCacheMachine])
def test_order_equals_an_exhaustive_search(
    machine: type[CacheMachine], make_cache: CacheMaker
) -> None:
    run_state_machine_as_test(
        lambda: machine(make_cache(NUM_BLOCKS)),  # type: ignore[arg-type]  # any factory will do
        settings=SETTINGS,
    )
