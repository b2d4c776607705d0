"""The free queue against an exhaustive search for the next victim."""

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

Run = Node[Any]
NUM_BLOCKS = 12


def expected_order(queue: EvictionQueue, priorities: dict[Run, Priority]) -> list[Any]:
    """Free blocks in eviction order by exhaustive search, straight from the contract."""
    spare = [*queue._spare]
    block_lists = {
        node: [*node.free_blocks] for node in queue._segments() if node.free_blocks.num_blocks
    }
    order = []
    while block_lists:
        ready = [
            node
            for node in block_lists
            if not any(c in block_lists for c in node.children.values())
        ]

        def rank(node: Run) -> tuple[Priority, int]:
            is_owned = node.parent is not None
            priority = priorities.get(node, (2, 1.0)) if is_owned else (0, 0.0)
            return priority, queue.age_of(block_lists[node][0])

        victim = min(ready, key=rank)
        order.append(block_lists[victim].pop(0))
        if not block_lists[victim]:
            del block_lists[victim]
    return spare + order


PROMPTS = st.lists(st.sampled_from(b"ab"), max_size=5).map(bytes)
WORTHS = st.tuples(st.integers(1, 2), st.sampled_from([0.0, 0.5, 2.0]))


class CacheMachine(RuleBasedStateMachine):
    """An engine's requests and a runtime's judgements, against an exhaustive search."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache = cache
        self.queue = self.cache.queue
        self.running: list[tuple[bytes, Run, list[FakeBlock]]] = []
        self.owners: list[tuple[Run, object]] = []
        self.held: list[tuple[Run, int]] = []
        self.num_evicted = 0

    def runs(self) -> list[Run]:
        return [s for s in self.cache.tree.root.subtree() if s.parent is not None]

    def leave(self, node: Run) -> None:
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
        node = self.cache.chain(tokens)
        if tokens:
            owner = object()
            node.tails.add(owner)
            self.owners.append((node, owner))
        expected = [b for b in expected_order(self.queue, self.cache.priorities) if b not in hits]
        self.num_evicted += max(0, num_new - self.queue._spare.num_blocks)
        blocks = self.cache.use(tokens)
        if not hits:
            assert blocks == expected[:num_new]
        self.running.append((tokens, node, blocks))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), num_partial=st.integers(0, 1))
    def finish(self, data: st.DataObject, num_partial: int) -> None:
        _, _, blocks = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if num_partial <= self.queue.num_free_blocks:
            self.num_evicted += max(0, num_partial - self.queue._spare.num_blocks)
            blocks += self.cache.take(num_partial)
        self.cache.free(blocks)

    @rule()
    def settle(self) -> None:
        self.queue.settle()
        assert sum(count for _, count in self.cache.evicted) == self.num_evicted

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), priority=WORTHS)
    def judge(self, data: st.DataObject, priority: Priority) -> None:
        self.cache.set_worth(data.draw(st.sampled_from(self.runs())), priority)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        node, _ = data.draw(st.sampled_from(self.owners))
        for step in node.path():
            self.queue.reserve(step)
        self.held.append((node, 1))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        node, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        for step in node.path():
            self.queue.release(step)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        node, owner = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        node.tails.discard(owner)
        if not any(node is held for held, _ in self.held):
            self.leave(node)

    @precondition(lambda self: self.runs())
    @rule(data=st.data())
    def absorb(self, data: st.DataObject) -> None:
        used = {id(node) for node, _ in self.owners} | {id(node) for node, _ in self.held}
        nodes = [node for node in self.runs() if id(node) not in used]
        if nodes:
            self.queue.absorb(data.draw(st.sampled_from(nodes)))

    @precondition(lambda self: not self.running)
    @rule()
    def drop_all_content(self) -> None:
        order = self.queue.get_all_free_blocks()
        for block in self.cache.blocks:
            self.cache.lose(block)
        self.queue.forget_content()
        self.check_held()
        assert self.queue.get_all_free_blocks() == order
        self.cache.tree.clear()
        self.owners.clear()
        self.held.clear()

    @invariant()
    def order_is_that_of_the_search(self) -> None:
        expected = expected_order(self.queue, self.cache.priorities)
        assert self.queue.get_all_free_blocks() == expected

    @invariant()
    def every_free_block_is_there_once(self) -> None:
        free = {block.block_id for block in self.queue.get_all_free_blocks()}
        assert free == {b.block_id for b in self.cache.blocks if not b.num_users}
        assert self.queue.num_free_blocks == len(free)

    @invariant()
    def check_held(self) -> None:
        nodes = {step for node, _ in self.held for step in node.path()}
        assert self.queue.num_reserved_blocks == sum(node.free_blocks.num_blocks for node in nodes)

    @invariant()
    def all_is_whole(self) -> None:
        self.cache.check()


class StrictCacheMachine(CacheMachine):
    """Without content lost out of turn: then no victim has a continuation that is kept."""

    @invariant()
    def chains_are_given_up_from_their_ends(self) -> None:
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
def test_order_is_that_of_an_exhaustive_search(
    machine: type[CacheMachine], make_cache: CacheMaker
) -> None:
    run_state_machine_as_test(
        lambda: machine(make_cache(NUM_BLOCKS)),  # type: ignore[arg-type]  # any factory will do
        settings=SETTINGS,
    )
