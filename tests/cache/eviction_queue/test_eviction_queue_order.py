"""The lowest priority is evicted first, and each path from its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cache.eviction_queue.conftest import CacheMaker


def test_empty_blocks_taken_first_last_freed_first(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    cache.turn("abc")
    first, second = cache.take(2)
    cache.queue.prepend_n([first, second])

    assert cache.queue.popleft_n(3) == [first, second, cache.blocks[5]]
    assert cache.order() == ["abc", "ab", "a"]


def test_lowest_path_evicted_first_and_from_its_end(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    cache.turn("abc", (2, 0.9))
    cache.turn("xyz", (2, 0.1))

    assert cache.contents(cache.queue.popleft_n(4)) == ["xyz", "xy", "x", "abc"]


def test_priority_class_counts_before_priority(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    cache.turn("ab", (2, 0.1))
    cache.turn("xy", (1, 9.0))

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]


def test_equal_priorities_evicted_in_order_of_freeing(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    first, second = (cache.use(text) for text in ("ab", "xy"))
    for text in ("ab", "xy"):
        cache.insert(text).tails.add(text)
    for block in (first[1], second[1], first[0], second[0]):
        cache.queue.append(block)

    assert cache.contents(cache.queue.popleft_n(4)) == ["ab", "xy", "a", "x"]


def test_shared_prefix_of_low_priority_outlives_extensions(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(6)
    cache.turn("abcd", (2, 0.9))
    cache.turn("abxy", (2, 0.8))
    shared = cache.tree.locate(b"ab")
    assert shared is not None
    cache.set_priority(shared, (1, 0.0))

    assert cache.contents(cache.queue.popleft_n(6)) == ["abxy", "abx", "abcd", "abc", "ab", "a"]


def test_prefix_ranked_again_once_last_child_is_reused(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(4)
    cache.turn("ab", (1, 0.0), owner="prompt")
    answer = cache.turn("abc", (2, 0.5))
    assert answer.parent is cache.tree.locate(b"ab")

    cache.queue.remove(cache.cached[b"abc"])

    assert cache.order() == ["ab", "a"]
    cache.check()


def test_evictions_are_reported_by_node(make_cache: CacheMaker) -> None:
    cache = make_cache(7)
    low = cache.turn("abc", (1, 0.0))
    high = cache.turn("xyz", (2, 0.0))

    cache.queue.popleft_n(5)
    cache.queue.popleft_n(1)

    assert cache.evicted == [(low, 3)]
    cache.queue.settle()
    assert cache.evicted == [(low, 3), (high, 2)]


def test_unknown_content_evicted_first_and_reported_unowned(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(4)
    cache.turn("ab", (1, 0.0))
    unknown = cache.take(2)
    for block, content in zip(unknown, (b"q", b"r"), strict=True):
        block.block_hash = content + b"\0\0\0\0"
    cache.queue.append_n(unknown)

    assert cache.queue.popleft_n(2) == unknown
    assert cache.evicted == [(None, 2)]


def test_unused_node_forgotten_with_its_last_block(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(3)
    node = cache.turn("ab")
    node.tails.clear()

    cache.queue.popleft_n(2)
    assert node.is_attached
    cache.queue.popleft_n(1)

    assert not node.is_attached
    assert len(cache.tree) == 0


def test_used_node_remembered_after_its_last_block(make_cache: CacheMaker) -> None:
    cache = make_cache(2)
    node = cache.turn("ab")

    cache.queue.popleft_n(2)

    assert node.is_attached
    assert cache.known_depth("ab") == 2


def test_risen_priority_noticed_before_eviction(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(4)
    risen = cache.turn("ab", (2, 0.1))
    cache.turn("xy", (2, 0.5))
    cache.priorities[risen] = (2, 0.9)

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]
    cache.check()


def test_fallen_priority_counts_from_its_rescore(make_cache: CacheMaker) -> None:
    cache = make_cache(4)
    cache.turn("ab", (2, 0.1))
    fallen = cache.turn("xy", (2, 0.5))
    cache.priorities[fallen] = (2, 0.0)
    cache.queue.rescore(fallen)

    assert cache.contents(cache.queue.popleft_n(2)) == ["xy", "x"]


def test_search_is_bounded_while_all_priorities_rise(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(40)
    for i in range(20):
        cache.turn(chr(97 + i) * 2)
    nodes = [node for node in cache.tree.root.subtree() if node.parent is not None]
    for node in nodes:
        cache.priorities[node] = (2, 2.0 + node.version)
    cache.num_rescores = 0

    cache.queue.popleft_n(1)

    assert cache.num_rescores < 20
    cache.check()


def test_ranking_stays_small_after_many_rescores(make_cache: CacheMaker) -> None:
    cache = make_cache(8)
    nodes = [cache.turn(text) for text in ("ab", "cd", "ef", "gh")]

    for _ in range(500):
        for node in nodes:
            cache.queue.rescore(node)

    assert len(cache.queue._ranking) <= 64 + 4 * 5
    cache.check()


def test_removed_victim_ranks_its_node_by_next_block(
    make_cache: CacheMaker,
) -> None:
    cache = make_cache(4)
    blocks = cache.take(3)
    for block, content in zip(blocks, (b"p", b"q", b"r"), strict=True):
        block.block_hash = content + b"\0\0\0\0"
    cache.queue.append(blocks[0])
    cache.insert("x").tails.add("x")
    cache.priorities[cache.tree.root.children[b"x"]] = (0, 0.0)
    cache.free(cache.use("x"))
    cache.queue.append_n(blocks[1:])

    cache.queue.remove(blocks[0])

    assert cache.contents(cache.queue.popleft_n(3)) == ["x", "q", "r"]


def test_iteration_after_a_cursor_is_rest_of_order(make_cache: CacheMaker) -> None:
    cache = make_cache(6)
    cache.turn("abc", (2, 0.9))
    cache.turn("xy", (2, 0.1))
    order = cache.queue.get_all_free_blocks()

    assert [*cache.queue.iter_blocks_after(None)] == order
    for i, cursor in enumerate(order):
        assert [*cache.queue.iter_blocks_after(cursor)] == order[i + 1 :]


def test_iteration_after_a_block_in_use_is_empty(make_cache: CacheMaker) -> None:
    cache = make_cache(3)
    taken = cache.queue.popleft()

    assert [*cache.queue.iter_blocks_after(taken)] == []


def test_removal_of_a_block_in_use_raises(make_cache: CacheMaker) -> None:
    cache = make_cache(3)
    taken = cache.queue.popleft()

    with pytest.raises(RuntimeError, match="is not free"):
        cache.queue.remove(taken)

    assert cache.queue.num_free_blocks == 2
    cache.check()


def test_pop_from_an_empty_queue_raises(make_cache: CacheMaker) -> None:
    cache = make_cache(1)
    cache.queue.popleft()

    with pytest.raises(ValueError, match="No free blocks"):
        cache.queue.popleft()
    assert cache.queue.popleft_n(0) == []
