"""Free blocks follow their content when nodes split, join, leave and are reserved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cache.eviction_queue.conftest import CacheMaker


def test_split_moves_free_blocks_of_the_shallow_half(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    old = cache.turn("abcd", (1, 0.0))

    cache.insert("abxy")

    upper = cache.tree.locate(b"ab")
    assert upper is not None
    assert cache.contents(upper.free_blocks) == ["ab", "a"]
    assert cache.contents(old.free_blocks) == ["abcd", "abc"]
    assert cache.order() == ["abcd", "abc", "ab", "a"]
    cache.check()


def test_parent_of_a_split_evictable_without_shallow_blocks(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(6)
    cache.turn("ab")
    cache.turn("abcdef")
    for content in (b"abc", b"abcd"):
        block = cache.cached[content]
        cache.queue.remove(block)
        cache.lose(block)

    cache.insert("abcdxy")

    cache.check()
    assert len(cache.queue.popleft_n(4)) == 4


def test_split_leaves_an_emptied_block_where_it_is(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    old = cache.turn("abcd")
    lost = cache.cached[b"ab"]
    cache.lose(lost)

    cache.insert("abx")

    assert lost in [*old.free_blocks]
    cache.check()


def test_emptied_block_is_still_taken(make_cache: CacheMaker) -> None:
    cache = make_cache(2)
    cache.turn("ab")
    lost = cache.cached[b"ab"]
    cache.lose(lost)

    assert lost in cache.queue.popleft_n(2)


def test_absorbed_answer_evicted_before_its_prompt(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    prompt = cache.turn("ab", (2, 0.5))
    answer = cache.turn("abcd", (2, 0.7))
    prompt.tails.clear()
    answer.tails.clear()

    cache.queue.absorb(answer)

    assert cache.contents(prompt.free_blocks) == ["abcd", "abc", "ab", "a"]
    assert cache.order() == ["abcd", "abc", "ab", "a"]
    cache.check()


def test_absorbed_blocks_that_are_younger_let_a_rival_pass(make_cache: CacheMaker) -> None:
    cache = make_cache(8)
    prompt = cache.insert("ab")
    prompt.tails.add("ab")
    answer = cache.insert("abcd")
    a, b, c, d = cache.use("abcd")
    cache.free([d])
    cache.free([a, b])
    cache.turn("xy")
    cache.free([c])

    prompt.tails.clear()
    cache.queue.absorb(answer)

    emptied = cache.queue.popleft_n(2)
    assert [block.block_hash for block in emptied] == [None, None]
    taken = cache.contents(cache.queue.popleft_n(6))
    assert taken == ["abcd", "xy", "x", "abc", "ab", "a"]


def test_node_that_cannot_be_absorbed_keeps_its_blocks(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    cache.turn("ab")
    answer = cache.turn("abcd")

    cache.queue.absorb(answer)

    assert cache.contents(answer.free_blocks) == ["abcd", "abc"]
    cache.check()


def test_absorbing_counts_an_open_child_of_the_grandparent(make_cache: CacheMaker) -> None:
    cache = make_cache(8)
    first = cache.turn("ab")
    second = cache.turn("abcd")
    third = cache.turn("abcdef")
    for block in [*second.free_blocks]:
        cache.queue.remove(block)
    second.tails.clear()
    third.tails.clear()

    cache.queue.absorb(third)

    assert first.num_open_children == 1
    cache.check()


def test_disowned_blocks_evicted_first_in_order_of_freeing(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(8)
    cache.turn("ab", (1, 0.0))
    earlier = cache.turn("cd", (2, 9.0))
    later = cache.turn("ef", (2, 9.0))

    cache.queue.disown(later)
    cache.queue.disown(earlier)

    assert cache.contents(cache.queue.popleft_n(8)[2:]) == ["cd", "c", "ef", "e", "ab", "a"]
    assert [node for node, _ in cache.evicted[:2]] == [None, None]


def test_disowned_node_is_unknown_and_unreserved(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    node = cache.turn("ab")
    cache.queue.reserve(node)

    cache.queue.disown(node)

    assert cache.tree.locate(b"ab") is None
    assert cache.queue.num_reserved_blocks == 0
    cache.check()


def test_disowned_block_counts_as_new_once_reused(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    node = cache.turn("ab")
    cache.queue.disown(node)
    again = cache.insert("ab")
    again.tails.add("again")

    blocks = cache.use("ab")
    cache.check()
    cache.free(blocks)

    assert cache.contents(again.free_blocks) == ["ab", "a"]
    cache.check()


def test_disowning_the_last_child_readies_its_parent(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    cache.turn("ab", (1, 0.0))
    answer = cache.turn("abc", (2, 5.0))

    cache.queue.disown(answer)

    assert cache.order() == ["abc", "ab", "a"]
    cache.check()


def test_reserved_blocks_follow_reservations_and_free_blocks(make_cache: CacheMaker) -> None:
    cache = make_cache(8)
    node = cache.turn("abcd")
    counts = [cache.queue.num_reserved_blocks]
    cache.queue.reserve(node)
    counts.append(cache.queue.num_reserved_blocks)
    cache.queue.reserve(node)
    counts.append(cache.queue.num_reserved_blocks)
    cache.queue.remove(cache.cached[b"a"])
    counts.append(cache.queue.num_reserved_blocks)
    cache.queue.append(cache.cached[b"a"])
    counts.append(cache.queue.num_reserved_blocks)
    cache.insert("abx")
    counts.append(cache.queue.num_reserved_blocks)
    for step in node.path():
        cache.queue.release(step)
    counts.append(cache.queue.num_reserved_blocks)
    for step in node.path():
        cache.queue.release(step)
    counts.append(cache.queue.num_reserved_blocks)

    assert counts == [0, 4, 4, 3, 4, 4, 4, 0]


def test_taken_blocks_are_no_longer_reserved(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    cache.queue.reserve(cache.turn("abcd"))

    cache.queue.popleft_n(3)

    assert cache.queue.num_reserved_blocks == 1


def test_dropped_content_keeps_order_and_reservations(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(6)
    node = cache.turn("abc", (1, 0.0))
    cache.turn("xy", (2, 0.0))
    cache.queue.disown(cache.turn("q"))
    cache.queue.reserve(node)
    order = cache.queue.get_all_free_blocks()

    cache.queue.forget_content()

    assert cache.queue.get_all_free_blocks() == order
    assert cache.queue.num_reserved_blocks == 0
    cache.check()
    cache.queue.release(node)
    assert node.num_reservations == 0
    assert cache.queue.popleft_n(6) == order
    assert cache.evicted == []


def test_lru_is_the_order_of_freeing_whatever_came_before(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(16)
    cache.turn("ab", (2, 0.9))
    cache.turn("abcd", (1, 0.0))
    cache.queue.disown(cache.turn("xy", (2, 0.3)))
    cache.turn("q", (2, 0.0))

    cache.queue.use_lru()

    content = [b for b in cache.queue.get_all_free_blocks() if b.block_hash is not None]
    assert content == sorted(content, key=cache.queue.freed_at)
    assert len(content) == 7
    cache.check()


@pytest.mark.parametrize("is_switched_first", [False, True])
def test_lru_sorts_a_node_whose_end_became_free_last(
    make_cache: CacheMaker, is_switched_first: bool
) -> None:
    cache = make_cache(4)
    prompt = cache.insert("ab")
    prompt.tails.add("prompt")
    answer = cache.insert("abcd")
    prompt.tails.clear()
    a, ab, abc, abcd = cache.use("abcd")
    for block in (ab, a, abcd, abc):
        cache.queue.append(block)

    if is_switched_first:
        cache.queue.use_lru()
    cache.queue.absorb(answer)
    if not is_switched_first:
        cache.queue.use_lru()

    assert cache.order() == ["ab", "a", "abcd", "abc"]
    assert cache.contents(cache.queue.popleft_n(4)) == ["ab", "a", "abcd", "abc"]


def test_disowned_node_dropped_once_its_blocks_are_in_use(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    for text in ("ab", "xy"):
        cache.queue.disown(cache.turn(text))

    cache.queue.popleft_n(2)
    cache.check()
    cache.use("xy")

    cache.check()


def test_split_keeps_the_age_of_free_blocks(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    cache.turn("abcd")
    cache.turn("q")

    cache.insert("abxy")

    assert cache.order() == ["abcd", "abc", "ab", "a", "q"]
