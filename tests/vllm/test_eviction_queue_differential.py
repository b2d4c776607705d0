"""With equal retention priorities the eviction queue equals vLLM's free queue at each operation.

Two of vLLM's block pools run the same requests; one of them has Holdfast's queue in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.runtime.session_blocks import SessionBlocks

block_pool = pytest.importorskip("vllm.v1.core.block_pool")

pytestmark = pytest.mark.engine

BLOCK_TOKENS = 16
NUM_BLOCKS = 14
AS_IF_UNOWNED = (0, 0.0)
PROMPT = st.lists(st.sampled_from(b"ab"), max_size=5).map(bytes)


def hashes_of(tokens: bytes) -> list[bytes]:
    """A prefix hash for each block of a prompt; one token is one block."""
    return [b"prefix-" + tokens[: i + 1] for i in range(len(tokens))]


class Side:
    """A block pool, used the way vLLM's cache manager uses it."""

    def __init__(self, *, enable_caching: bool = True) -> None:
        self.pool = block_pool.BlockPool(NUM_BLOCKS, enable_caching, BLOCK_TOKENS)

    def hits(self, hashes: list[bytes]) -> list[Any]:
        found = []
        for block_hash in hashes:
            blocks = self.pool.get_cached_block(block_hash, [0])
            if blocks is None:
                break
            found += blocks
        return found

    def start(self, hashes: list[bytes], num_partial: int) -> list[Any] | None:
        hits = self.hits(hashes)
        num_new = len(hashes) + num_partial - len(hits)
        num_idle_hits = sum(block.ref_cnt == 0 for block in hits)
        if num_new > self.pool.get_num_free_blocks() - num_idle_hits:
            return None
        self.pool.touch(hits)
        blocks: list[Any] = hits + self.pool.get_new_blocks(num_new)
        return blocks

    def cache(self, hashes: list[bytes], blocks: list[Any], num_cached: int) -> None:
        request = SimpleNamespace(block_hashes=hashes)
        self.pool.cache_full_blocks(request, blocks, num_cached, len(hashes), BLOCK_TOKENS, 0)


@dataclass(eq=False)
class Turn:
    """A running request, or one whose session has paused; its blocks in both pools."""

    tokens: bytes
    tail: Node[Any]
    prompt_tail: Node[Any]
    blocks: list[list[Any]] = field(default_factory=list)
    num_cached: int = 0


class PoolsAlike(RuleBasedStateMachine):
    """Requests whose blocks are cached at once, so no content is in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stock, self.ours = self.sides = [Side(), Side()]
        self.tree: PrefixTree[Any] = PrefixTree()
        self.num_answers = 0
        self.num_evicted = 0
        self.queue = EvictionQueue(
            self.ours.pool.free_block_queue.get_all_free_blocks(),
            NUM_BLOCKS,
            self.tree,
            lambda _node: AS_IF_UNOWNED,
            self.note_evicted,
        )
        self.ours.pool.free_block_queue = self.queue
        self.session_blocks = SessionBlocks(self.tree, self.queue, lambda _: None)
        self.running: list[Turn] = []
        self.paused: list[Turn] = []

    def note_evicted(self, _node: Node[Any] | None, num_blocks: int) -> None:
        self.num_evicted += num_blocks

    # Calls of the runtime.

    def settle(self, turn: Turn, tokens: bytes) -> None:
        """Make `tokens` the path of a new turn."""
        turn.tail = turn.prompt_tail = tail = self.session_blocks.insert(hashes_of(tokens))
        if tail.parent is not None:
            tail.tails.add(turn)
            tail.prompts.add(turn)

    def uproot(self, turn: Turn) -> None:
        turn.tail.tails.discard(turn)
        turn.prompt_tail.prompts.discard(turn)

    # Calls of the engine.

    def begin(self, turn: Turn, num_partial: int, *, is_cached: bool) -> None:
        hashes = hashes_of(turn.tokens)
        stock, ours = (side.start(hashes, num_partial) for side in self.sides)
        assert (stock is None) == (ours is None)
        if stock is None or ours is None:
            self.uproot(turn)
            self.session_blocks.leave(turn.tail)
            return
        assert [b.block_id for b in stock] == [b.block_id for b in ours]
        turn.blocks = [stock, ours]
        turn.num_cached = sum(1 for block in stock if block.block_hash is not None)
        if is_cached:
            self.cache(turn)
        self.running.append(turn)

    def cache(self, turn: Turn) -> None:
        for side, blocks in zip(self.sides, turn.blocks, strict=True):
            side.cache(hashes_of(turn.tokens), blocks, turn.num_cached)
        turn.num_cached = len(turn.tokens)

    @rule(tokens=PROMPT, num_partial=st.integers(0, 2))
    def begin_session(self, tokens: bytes, num_partial: int) -> None:
        turn = Turn(tokens, self.tree.root, self.tree.root)
        self.settle(turn, tokens)
        self.begin(turn, num_partial, is_cached=True)

    @precondition(lambda self: self.paused)
    @rule(data=st.data(), more=PROMPT, num_partial=st.integers(0, 2), back=st.integers(0, 1))
    def resume_session(self, data: st.DataObject, more: bytes, num_partial: int, back: int) -> None:
        """The next prompt repeats the path, or all but the end of its last answer."""
        turn = self.paused.pop(data.draw(st.integers(0, len(self.paused) - 1)))
        tokens = turn.tokens[: max(turn.prompt_tail.end, len(turn.tokens) - back)] + more
        old_tail = turn.tail
        is_answer = old_tail is not turn.prompt_tail
        self.uproot(turn)
        is_idle = is_answer and old_tail.is_attached and not old_tail.is_endpoint
        if is_idle and self.tree.match(hashes_of(tokens)).depth >= old_tail.end:
            self.queue.absorb(old_tail)
        turn.tokens = tokens
        self.settle(turn, tokens)
        self.session_blocks.leave(old_tail)
        self.begin(turn, num_partial, is_cached=True)

    def answer(self, length: int) -> bytes:
        """A unique answer; a prompt repeats it only with everything before it."""
        self.num_answers += 1
        return bytes([128 + self.num_answers] * length)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), length=st.integers(0, 2))
    def finish(self, data: st.DataObject, length: int) -> None:
        answer = self.answer(length)
        turn = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        num_new = len(turn.tokens) + len(answer) - len(turn.blocks[0])
        if num_new <= self.stock.pool.get_num_free_blocks():
            for side, blocks in zip(self.sides, turn.blocks, strict=True):
                blocks += side.pool.get_new_blocks(max(num_new, 0))
            turn.tokens += answer
            self.cache(turn)
        turn.tail.tails.discard(turn)
        turn.tail = self.session_blocks.insert(hashes_of(turn.tokens))
        if turn.tail.parent is not None:
            turn.tail.tails.add(turn)
        for side, blocks in zip(self.sides, turn.blocks, strict=True):
            side.pool.free_blocks(reversed(blocks))
        turn.blocks = []
        self.paused.append(turn)

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def forget_session(self, data: st.DataObject) -> None:
        turn = self.paused.pop(data.draw(st.integers(0, len(self.paused) - 1)))
        self.uproot(turn)
        self.session_blocks.leave(turn.tail)

    @rule(num_blocks=st.integers(1, 3))
    def use_blocks_without_content(self, num_blocks: int) -> None:
        if num_blocks <= self.stock.pool.get_num_free_blocks():
            taken = [side.pool.get_new_blocks(num_blocks) for side in self.sides]
            for side, blocks in zip(self.sides, taken, strict=True):
                side.pool.free_blocks(blocks)

    # Not in every supported vLLM.
    @precondition(lambda self: hasattr(block_pool.BlockPool, "unpin_blocks"))
    @rule(num_blocks=st.integers(1, 3))
    def unpin_blocks(self, num_blocks: int) -> None:
        if num_blocks <= self.stock.pool.get_num_free_blocks():
            for side in self.sides:
                blocks = side.pool.get_new_blocks(num_blocks)
                side.pool.unpin_blocks(blocks, lambda _block: None)

    @precondition(lambda self: not self.running)
    @rule()
    def reset_prefix_cache(self) -> None:
        assert all(side.pool.reset_prefix_cache() for side in self.sides)
        self.queue.forget_content()
        self.tree.clear()
        self.paused.clear()

    @invariant()
    def free_blocks_stand_in_the_same_order(self) -> None:
        stock = self.stock.pool.free_block_queue
        expected = [block.block_id for block in stock.get_all_free_blocks()]
        assert [block.block_id for block in self.queue.get_all_free_blocks()] == expected
        assert self.queue.num_free_blocks == stock.num_free_blocks == len(expected)

    @invariant()
    def queue_and_tree_are_whole(self) -> None:
        self.queue.check_integrity()
        self.tree.check_integrity()

    @invariant()
    def walks_from_a_cursor_agree(self) -> None:
        for cursor in (1, NUM_BLOCKS // 2):
            walks = [
                side.pool.free_block_queue.iter_blocks_after(side.pool.blocks[cursor])
                for side in self.sides
            ]
            stock, ours = ([block.block_id for block in walk] for walk in walks)
            assert stock == ours


class PoolsAlikeUnderLoss(PoolsAlike):
    """Also content in two blocks or lost out of order, where vLLM's order breaks paths."""

    @initialize(is_late=st.booleans())
    def use_lru(self, is_late: bool) -> None:
        if is_late:
            self.finish_late()
        self.queue.use_lru()

    def answer(self, length: int) -> bytes:
        return b"ab"[:length]

    def finish_late(self) -> None:
        """Free some content before the queue is replaced."""
        for tokens in (b"ab", b"aa", b"b"):
            turn = Turn(tokens, self.tree.root, self.tree.root)
            self.settle(turn, tokens)
            self.begin(turn, 1, is_cached=True)
            self.running.remove(turn)
            for side, blocks in zip(self.sides, turn.blocks, strict=True):
                side.pool.free_blocks(reversed(blocks))
            self.paused.append(turn)

    @rule(tokens=PROMPT)
    def begin_session_cached_when_it_ends(self, tokens: bytes) -> None:
        turn = Turn(tokens, self.tree.root, self.tree.root)
        self.settle(turn, tokens)
        self.begin(turn, 0, is_cached=False)

    @rule(ids=st.sets(st.integers(1, NUM_BLOCKS - 1), min_size=1, max_size=3))
    def evict_blocks(self, ids: set[int]) -> None:
        for side in self.sides:
            side.pool.evict_blocks(ids)


SETTINGS = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize("machine", [PoolsAlike, PoolsAlikeUnderLoss])
def test_equal_priorities_give_vllms_order(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)


def test_without_prefix_caching_order_is_vllms() -> None:
    stock, ours = Side(enable_caching=False), Side(enable_caching=False)
    tree: PrefixTree[Any] = PrefixTree()
    free = ours.pool.free_block_queue.get_all_free_blocks()
    ours.pool.free_block_queue = EvictionQueue(
        free, NUM_BLOCKS, tree, lambda _node: (1, 0.0), lambda _node, _count: None
    )

    for side in (stock, ours):
        first, second = side.pool.get_new_blocks(4), side.pool.get_new_blocks(3)
        side.pool.free_blocks(reversed(first))
        side.pool.free_blocks(reversed(second))

    orders = [side.pool.free_block_queue.get_all_free_blocks() for side in (stock, ours)]
    assert [b.block_id for b in orders[1]] == [b.block_id for b in orders[0]]


@pytest.mark.parametrize("side_is_ours", [False, True])
def test_errors_are_those_of_vllm(side_is_ours: bool) -> None:
    side = Side()
    if side_is_ours:
        side.pool.free_block_queue = EvictionQueue(
            side.pool.free_block_queue.get_all_free_blocks(),
            NUM_BLOCKS,
            PrefixTree(),
            lambda _node: (1, 0.0),
            lambda _node, _count: None,
        )
    queue = side.pool.free_block_queue
    taken = queue.popleft()

    with pytest.raises(RuntimeError):
        queue.remove(taken)
    queue.popleft_n(queue.num_free_blocks)
    with pytest.raises(ValueError, match="No free blocks"):
        queue.popleft()
    with pytest.raises(AssertionError):
        queue.popleft_n(1)
    assert queue.popleft_n(0) == []
