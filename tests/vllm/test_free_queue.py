"""The free queue gives up the cheapest chain first, and each chain from its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.core.chains import ChainTree, Segment
from holdfast.vllm.free_queue import FreeQueue, Worth

GROUP = b"\0\0\0\0"
Run = Segment[Any]


@dataclass(eq=False)
class FakeBlock:
    """A KV block with content `block_hash`, or none."""

    block_id: int
    block_hash: bytes | None = None
    num_users: int = 0
    prev_free_block: object | None = None
    next_free_block: object | None = None


def hashes_of(text: str | bytes) -> list[bytes]:
    """A hash for each block of a prompt, a letter being a block: the prefix itself."""
    tokens = text.encode() if isinstance(text, str) else text
    return [tokens[: i + 1] for i in range(len(tokens))]


class Cache:
    """A queue over a small pool, used as an engine and a runtime use it.

    `worths` is what the queue is told a run is worth; runs not in it are worth (2, 1.0).
    """

    def __init__(self, num_blocks: int) -> None:
        self.blocks = [FakeBlock(i) for i in range(num_blocks)]
        self.tree: ChainTree[Any] = ChainTree()
        self.worths: dict[Run, Worth] = {}
        self.num_worths_asked = 0
        self.evicted: list[tuple[Run | None, int]] = []
        self.queue = FreeQueue(
            self.blocks,
            num_blocks,
            self.tree,
            self.worth_of,
            lambda run, count: self.evicted.append((run, count)),
        )
        self.cached: dict[bytes, FakeBlock] = {}

    def worth_of(self, run: Run) -> Worth:
        self.num_worths_asked += 1
        return self.worths.get(run, (2, 1.0))

    def chain(self, text: str | bytes) -> Run:
        """Make the prompt known, as when a turn arrives."""
        hashes = hashes_of(text)
        tail, upper = self.tree.insert(hashes)
        if upper is not None:
            following = hashes[upper.end] if len(hashes) > upper.end else None
            deeper = next(run for key, run in upper.children.items() if key != following)
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
        """Blocks for a prompt, cached ones first used again, with its content in them."""
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
        """Let go of a request's blocks, given from the start of the prompt."""
        idle = []
        for block in reversed([*blocks]):
            block.num_users -= 1
            if not block.num_users:
                idle.append(block)
        self.queue.prepend_n([block for block in idle if block.block_hash is None])
        self.queue.append_n([block for block in idle if block.block_hash is not None])

    def turn(self, text: str, worth: Worth | None = None, owner: object = None) -> Run:
        """A prompt that has come, been computed and been freed again."""
        run = self.chain(text)
        run.tails.add(text if owner is None else owner)
        self.free(self.use(text))
        if worth is not None:
            self.set_worth(run, worth)
        return run

    def set_worth(self, run: Run, worth: Worth) -> None:
        self.worths[run] = worth
        self.queue.rescore(run)

    def contents(self, blocks: Iterable[Any]) -> list[str]:
        return [(b.block_hash or b"-" + GROUP)[:-4].decode() for b in blocks]

    def order(self) -> list[str]:
        """Contents of the free blocks with content, next victim first."""
        return [text for text in self.contents(self.queue.get_all_free_blocks()) if text != "-"]

    def check(self) -> None:
        self.queue.check_integrity()
        self.tree.check_integrity()


def expected_order(queue: FreeQueue, worths: dict[Run, Worth]) -> list[Any]:
    """Free blocks in eviction order by exhaustive search, straight from the contract."""
    spare = [*queue._spare]
    lanes = {run: [*run.lane] for run in queue._segments() if run.lane.num_blocks}
    order = []
    while lanes:
        ready = [run for run in lanes if not any(c in lanes for c in run.children.values())]

        def rank(run: Run) -> tuple[Worth, int]:
            is_owned = run.parent is not None
            worth = worths.get(run, (2, 1.0)) if is_owned else (0, 0.0)
            return worth, queue.age_of(lanes[run][0])

        victim = min(ready, key=rank)
        order.append(lanes[victim].pop(0))
        if not lanes[victim]:
            del lanes[victim]
    return spare + order


PROMPTS = st.lists(st.sampled_from(b"ab"), max_size=5).map(bytes)
WORTHS = st.tuples(st.integers(1, 2), st.sampled_from([0.0, 0.5, 2.0]))


class CacheMachine(RuleBasedStateMachine):
    """An engine's requests and a runtime's judgements, against an exhaustive search."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(12)
        self.queue = self.cache.queue
        self.running: list[tuple[bytes, Run, list[FakeBlock]]] = []
        self.owners: list[tuple[Run, object]] = []
        self.held: list[tuple[Run, int]] = []

    def runs(self) -> list[Run]:
        return [s for s in self.cache.tree.root.subtree() if s.parent is not None]

    def leave(self, run: Run) -> None:
        while (
            run.parent is not None
            and run.is_attached
            and not run.children
            and not run.is_endpoint
            and not run.num_held
        ):
            parent = run.parent
            self.queue.disown(run)
            run = parent

    @rule(tokens=PROMPTS)
    def begin(self, tokens: bytes) -> None:
        hits = self.cache.hits(tokens)
        num_idle_hits = sum(not block.num_users for block in hits)
        num_new = len(tokens) - len(hits)
        if num_new > self.queue.num_free_blocks - num_idle_hits:
            return
        run = self.cache.chain(tokens)
        if tokens:
            owner = object()
            run.tails.add(owner)
            self.owners.append((run, owner))
        expected = [b for b in expected_order(self.queue, self.cache.worths) if b not in hits]
        num_before = len(self.cache.evicted)
        num_spare = self.queue._spare.num_blocks
        blocks = self.cache.use(tokens)
        if not hits:
            assert blocks == expected[:num_new]
        counts = [count for _, count in self.cache.evicted[num_before:]]
        assert sum(counts) == max(0, num_new - num_spare)
        self.running.append((tokens, run, blocks))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), num_partial=st.integers(0, 1))
    def finish(self, data: st.DataObject, num_partial: int) -> None:
        _, _, blocks = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if num_partial <= self.queue.num_free_blocks:
            blocks += self.cache.take(num_partial)
        self.cache.free(blocks)

    @precondition(lambda self: self.runs())
    @rule(data=st.data(), worth=WORTHS)
    def judge(self, data: st.DataObject, worth: Worth) -> None:
        self.cache.set_worth(data.draw(st.sampled_from(self.runs())), worth)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        run, _ = data.draw(st.sampled_from(self.owners))
        for step in run.path():
            self.queue.hold(step)
        self.held.append((run, 1))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        run, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        for step in run.path():
            self.queue.release(step)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        run, owner = self.owners.pop(data.draw(st.integers(0, len(self.owners) - 1)))
        run.tails.discard(owner)
        if not any(run is held for held, _ in self.held):
            self.leave(run)

    @precondition(lambda self: self.runs())
    @rule(data=st.data())
    def absorb(self, data: st.DataObject) -> None:
        used = {id(run) for run, _ in self.owners} | {id(run) for run, _ in self.held}
        runs = [run for run in self.runs() if id(run) not in used]
        if runs:
            self.queue.absorb(data.draw(st.sampled_from(runs)))

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
        expected = expected_order(self.queue, self.cache.worths)
        assert self.queue.get_all_free_blocks() == expected

    @invariant()
    def every_free_block_is_there_once(self) -> None:
        free = {block.block_id for block in self.queue.get_all_free_blocks()}
        assert free == {b.block_id for b in self.cache.blocks if not b.num_users}
        assert self.queue.num_free_blocks == len(free)

    @invariant()
    def check_held(self) -> None:
        runs = {step for run, _ in self.held for step in run.path()}
        assert self.queue.num_held_blocks == sum(run.lane.num_blocks for run in runs)

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

    @rule(block_id=st.integers(0, 11))
    def lose(self, block_id: int) -> None:
        self.cache.lose(self.cache.blocks[block_id])


SETTINGS = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestStrictCache = StrictCacheMachine.TestCase
TestStrictCache.settings = SETTINGS
TestLossyCache = LossyCacheMachine.TestCase
TestLossyCache.settings = SETTINGS


def test_blocks_without_content_go_first_and_last_freed_first() -> None:
    cache = Cache(6)
    cache.turn("abc")
    first, second = cache.take(2)
    cache.queue.prepend_n([first, second])

    assert cache.queue.popleft_n(3) == [first, second, cache.blocks[5]]
    assert cache.order() == ["abc", "ab", "a"]


def test_cheapest_chain_goes_first_and_from_its_end() -> None:
    cache = Cache(6)
    cache.turn("abc", (2, 0.9))
    cache.turn("xyz", (2, 0.1))

    assert cache.contents(cache.queue.popleft_n(4)) == ["xyz", "xy", "x", "abc"]


def test_class_of_worth_counts_before_worth() -> None:
    cache = Cache(4)
    cache.turn("ab", (2, 0.1))
    cache.turn("xy", (1, 9.0))

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]


def test_equal_worths_go_in_order_of_becoming_free_across_chains() -> None:
    cache = Cache(4)
    first, second = (cache.use(text) for text in ("ab", "xy"))
    for text in ("ab", "xy"):
        cache.chain(text).tails.add(text)
    for block in (first[1], second[1], first[0], second[0]):
        cache.queue.append(block)

    assert cache.contents(cache.queue.popleft_n(4)) == ["ab", "xy", "a", "x"]


def test_shared_prefix_outlives_all_that_continues_it_however_little_it_is_worth() -> None:
    cache = Cache(6)
    cache.turn("abcd", (2, 0.9))
    cache.turn("abxy", (2, 0.8))
    shared = cache.tree.locate(b"ab")
    assert shared is not None
    cache.set_worth(shared, (1, 0.0))

    assert cache.contents(cache.queue.popleft_n(6)) == ["abxy", "abx", "abcd", "abc", "ab", "a"]


def test_prefix_is_ranked_again_when_its_last_continuation_is_used_again() -> None:
    cache = Cache(4)
    cache.turn("ab", (1, 0.0), owner="prompt")
    answer = cache.turn("abc", (2, 0.5))
    assert answer.parent is cache.tree.locate(b"b"[:0] + b"ab")

    cache.queue.remove(cache.cached[b"abc"])

    assert cache.order() == ["ab", "a"]
    cache.check()


def test_evictions_are_told_by_run_and_exactly() -> None:
    cache = Cache(7)
    cheap = cache.turn("abc", (1, 0.0))
    dear = cache.turn("xyz", (2, 0.0))

    cache.queue.popleft_n(6)

    assert cache.evicted == [(cheap, 3), (dear, 2)]


def test_content_of_no_known_chain_goes_before_any_and_is_told_as_unowned() -> None:
    cache = Cache(4)
    cache.turn("ab", (1, 0.0))
    stray = cache.take(2)
    for block, content in zip(stray, (b"q", b"r"), strict=True):
        block.block_hash = content + GROUP
    cache.queue.append_n(stray)

    assert cache.queue.popleft_n(2) == stray
    assert cache.evicted == [(None, 2)]


def test_run_without_users_is_forgotten_once_its_last_block_is_taken() -> None:
    cache = Cache(3)
    run = cache.turn("ab")
    run.tails.clear()

    cache.queue.popleft_n(2)
    assert run.is_attached
    cache.queue.popleft_n(1)

    assert not run.is_attached
    assert len(cache.tree) == 0


def test_run_with_users_is_remembered_after_its_last_block_is_taken() -> None:
    cache = Cache(2)
    run = cache.turn("ab")

    cache.queue.popleft_n(2)

    assert run.is_attached
    assert cache.tree.match(hashes_of("ab")).depth == 2


def test_worth_that_has_risen_unnoticed_is_seen_when_the_run_would_go() -> None:
    cache = Cache(4)
    risen = cache.turn("ab", (2, 0.1))
    cache.turn("xy", (2, 0.5))
    cache.worths[risen] = (2, 0.9)

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]
    cache.check()


def test_worth_that_has_fallen_counts_from_its_rescoring() -> None:
    cache = Cache(4)
    cache.turn("ab", (2, 0.1))
    fallen = cache.turn("xy", (2, 0.5))
    cache.worths[fallen] = (2, 0.0)
    cache.queue.rescore(fallen)

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]


def test_search_for_the_cheapest_run_is_bounded_while_all_worths_rise() -> None:
    cache = Cache(40)
    for i in range(20):
        cache.turn(chr(97 + i) * 2)
    runs = [run for run in cache.tree.root.subtree() if run.parent is not None]
    for run in runs:
        cache.worths[run] = (2, 2.0 + run.version)
    cache.num_worths_asked = 0

    cache.queue.popleft_n(1)

    assert cache.num_worths_asked < 20
    cache.check()


def test_search_survives_a_clean_up_of_the_ranking_in_its_midst() -> None:
    cache = Cache(80)
    runs = [cache.turn(chr(48 + i) * 2) for i in range(40)]
    heap = cache.queue._heap
    for run in runs[:36]:
        for block in [*run.lane]:
            cache.queue.remove(block)
    while len(heap) < 64 + 4 * 8:
        cache.queue.rescore(runs[39])
    for run in runs[36:39]:
        for block in [*run.lane]:
            cache.queue.remove(block)
    left = runs[39]
    other = cache.tree.root
    assert other.parent is None
    cache.worths[left] = (2, 3.0)

    taken = cache.queue.popleft_n(2)

    assert cache.contents(taken) == [left_text(left), left_text(left)[:1]]
    cache.check()


def left_text(run: Run) -> str:
    return run.hashes[-1].decode()


def test_ranking_stays_small_however_often_runs_are_rescored() -> None:
    cache = Cache(8)
    runs = [cache.turn(text) for text in ("ab", "cd", "ef", "gh")]

    for _ in range(500):
        for run in runs:
            cache.queue.rescore(run)

    assert len(cache.queue._heap) <= 64 + 4 * 5
    cache.check()


def test_removal_of_the_next_victim_ranks_its_run_by_the_following_block() -> None:
    cache = Cache(4)
    blocks = cache.take(3)
    for block, content in zip(blocks, (b"p", b"q", b"r"), strict=True):
        block.block_hash = content + GROUP
    cache.queue.append(blocks[0])
    cache.chain("x").tails.add("x")
    cache.worths[cache.tree.root.children[b"x"]] = (0, 0.0)
    cache.free(cache.use("x"))
    cache.queue.append_n(blocks[1:])

    cache.queue.remove(blocks[0])

    assert cache.contents(cache.queue.popleft_n(3)) == ["x", "q", "r"]


def test_split_run_passes_its_shallow_free_blocks_on() -> None:
    cache = Cache(6)
    old = cache.turn("abcd", (1, 0.0))

    cache.chain("abxy")

    upper = cache.tree.locate(b"ab")
    assert upper is not None
    assert cache.contents(upper.lane) == ["ab", "a"]
    assert cache.contents(old.lane) == ["abcd", "abc"]
    assert cache.order() == ["abcd", "abc", "ab", "a"]
    cache.check()


def test_run_before_a_split_can_still_be_given_up_when_the_shallow_half_has_no_free_block() -> None:
    cache = Cache(6)
    cache.turn("ab")
    cache.turn("abcdef")
    for content in (b"abc", b"abcd"):
        block = cache.cached[content]
        cache.queue.remove(block)
        cache.lose(block)

    cache.chain("abcdxy")

    cache.check()
    assert len(cache.queue.popleft_n(4)) == 4


def test_split_leaves_a_block_that_lost_its_content_where_it_is() -> None:
    cache = Cache(4)
    old = cache.turn("abcd")
    lost = cache.cached[b"ab"]
    cache.lose(lost)

    cache.chain("abx")

    assert lost in [*old.lane]
    cache.check()


def test_block_that_lost_its_content_is_still_given_out() -> None:
    cache = Cache(2)
    cache.turn("ab")
    lost = cache.cached[b"ab"]
    cache.lose(lost)

    assert lost in cache.queue.popleft_n(2)


def test_absorbed_answer_goes_before_the_prompt_it_joins() -> None:
    cache = Cache(6)
    prompt = cache.turn("ab", (2, 0.5))
    answer = cache.turn("abcd", (2, 0.7))
    prompt.tails.clear()
    answer.tails.clear()

    cache.queue.absorb(answer)

    assert cache.contents(prompt.lane) == ["abcd", "abc", "ab", "a"]
    assert cache.order() == ["abcd", "abc", "ab", "a"]
    cache.check()


def test_run_that_cannot_be_absorbed_keeps_its_blocks() -> None:
    cache = Cache(6)
    cache.turn("ab")
    answer = cache.turn("abcd")

    cache.queue.absorb(answer)

    assert cache.contents(answer.lane) == ["abcd", "abc"]
    cache.check()


def test_absorbed_run_opens_the_run_it_joins_to_the_run_before() -> None:
    cache = Cache(8)
    first = cache.turn("ab")
    second = cache.turn("abcd")
    third = cache.turn("abcdef")
    for block in [*second.lane]:
        cache.queue.remove(block)
    second.tails.clear()
    third.tails.clear()

    cache.queue.absorb(third)

    assert first.num_open_children == 1
    cache.check()


def test_disowned_blocks_go_first_in_the_order_in_which_they_became_free() -> None:
    cache = Cache(8)
    cache.turn("ab", (1, 0.0))
    earlier = cache.turn("cd", (2, 9.0))
    later = cache.turn("ef", (2, 9.0))

    cache.queue.disown(later)
    cache.queue.disown(earlier)

    assert cache.contents(cache.queue.popleft_n(8)[2:]) == ["cd", "c", "ef", "e", "ab", "a"]
    assert [run for run, _ in cache.evicted[:2]] == [None, None]


def test_disowned_run_is_unknown_and_no_longer_held() -> None:
    cache = Cache(4)
    run = cache.turn("ab")
    cache.queue.hold(run)

    cache.queue.disown(run)

    assert cache.tree.locate(b"ab") is None
    assert cache.queue.num_held_blocks == 0
    cache.check()


def test_disowned_block_can_be_used_again_and_then_counts_as_new() -> None:
    cache = Cache(4)
    run = cache.turn("ab")
    cache.queue.disown(run)
    again = cache.chain("ab")
    again.tails.add("again")

    blocks = cache.use("ab")
    cache.check()
    cache.free(blocks)

    assert cache.contents(again.lane) == ["ab", "a"]
    cache.check()


def test_disowning_the_last_continuation_frees_the_run_before_it() -> None:
    cache = Cache(4)
    cache.turn("ab", (1, 0.0))
    answer = cache.turn("abc", (2, 5.0))

    cache.queue.disown(answer)

    assert cache.order() == ["abc", "ab", "a"]
    cache.check()


def test_held_blocks_follow_holds_and_free_blocks() -> None:
    cache = Cache(8)
    run = cache.turn("abcd")
    counts = [cache.queue.num_held_blocks]
    cache.queue.hold(run)
    counts.append(cache.queue.num_held_blocks)
    cache.queue.hold(run)
    counts.append(cache.queue.num_held_blocks)
    cache.queue.remove(cache.cached[b"a"])
    counts.append(cache.queue.num_held_blocks)
    cache.queue.append(cache.cached[b"a"])
    counts.append(cache.queue.num_held_blocks)
    cache.chain("abx")
    counts.append(cache.queue.num_held_blocks)
    for step in run.path():
        cache.queue.release(step)
    counts.append(cache.queue.num_held_blocks)
    for step in run.path():
        cache.queue.release(step)
    counts.append(cache.queue.num_held_blocks)

    assert counts == [0, 4, 4, 3, 4, 4, 4, 0]


def test_held_blocks_that_are_taken_are_no_longer_held() -> None:
    cache = Cache(4)
    cache.queue.hold(cache.turn("abcd"))

    cache.queue.popleft_n(3)

    assert cache.queue.num_held_blocks == 1


def test_dropped_content_makes_all_blocks_spare_in_their_order_and_keeps_the_holders() -> None:
    cache = Cache(6)
    run = cache.turn("abc", (1, 0.0))
    cache.turn("xy", (2, 0.0))
    cache.queue.disown(cache.turn("q"))
    cache.queue.hold(run)
    order = cache.queue.get_all_free_blocks()

    cache.queue.forget_content()

    assert cache.queue.get_all_free_blocks() == order
    assert cache.queue.num_held_blocks == 0
    cache.check()
    cache.queue.release(run)
    assert run.num_held == 0
    assert cache.queue.popleft_n(6) == order
    assert cache.evicted == []


def test_equal_worth_is_the_order_of_becoming_free_whatever_happened_before() -> None:
    cache = Cache(16)
    cache.turn("ab", (2, 0.9))
    cache.turn("abcd", (1, 0.0))
    cache.queue.disown(cache.turn("xy", (2, 0.3)))
    cache.turn("q", (2, 0.0))

    cache.queue.make_worth_equal()

    content = [b for b in cache.queue.get_all_free_blocks() if b.block_hash is not None]
    assert content == sorted(content, key=cache.queue.age_of)
    assert len(content) == 7
    cache.check()


def test_walk_after_a_cursor_is_the_rest_of_the_order() -> None:
    cache = Cache(6)
    cache.turn("abc", (2, 0.9))
    cache.turn("xy", (2, 0.1))
    order = cache.queue.get_all_free_blocks()

    assert [*cache.queue.iter_blocks_after(None)] == order
    for i, cursor in enumerate(order):
        assert [*cache.queue.iter_blocks_after(cursor)] == order[i + 1 :]


def test_walk_after_a_block_that_is_not_free_is_empty() -> None:
    cache = Cache(3)
    taken = cache.queue.popleft()

    assert [*cache.queue.iter_blocks_after(taken)] == []


def test_removal_of_a_block_that_is_not_free_is_refused() -> None:
    cache = Cache(3)
    taken = cache.queue.popleft()

    with pytest.raises(RuntimeError, match="is not free"):
        cache.queue.remove(taken)

    assert cache.queue.num_free_blocks == 2
    cache.check()


def test_taking_from_an_empty_queue_is_refused() -> None:
    cache = Cache(1)
    cache.queue.popleft()

    with pytest.raises(ValueError, match="No free blocks"):
        cache.queue.popleft()
    assert cache.queue.popleft_n(0) == []
