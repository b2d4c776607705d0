"""The model of an engine's cache: hits, eviction by age, and blocks that never get lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.gateway.cache_model import CacheModel, ModelBlock


def model(num_blocks: int) -> CacheModel:
    return CacheModel(num_blocks, PrefixTree())


def prompt(text: str) -> list[bytes]:
    """A block a letter, named by the letters up to it."""
    return [text[: n + 1].encode() for n in range(len(text))]


def test_a_prompt_hits_what_an_ended_request_left() -> None:
    cache = model(8)
    cache.end(cache.start(prompt("abc"), 1))
    assert cache.num_resident(prompt("abcd")) == 3
    assert cache.num_resident(prompt("abx")) == 2
    assert cache.num_resident(prompt("xbc")) == 0
    assert cache.queue.num_free_blocks == 8


def test_the_least_recently_used_end_leaves_first() -> None:
    cache = model(6)
    cache.end(cache.start(prompt("abc"), 0))
    cache.end(cache.start(prompt("xy"), 0))
    # One block is empty; the last two of "abc" are evicted.
    cache.end(cache.start(prompt("qrs"), 0))
    assert cache.num_resident(prompt("abc")) == 1
    assert cache.num_resident(prompt("xy")) == 2


def test_running_requests_share_blocks_and_keep_them() -> None:
    cache = model(4)
    first, second = cache.start(prompt("ab"), 0), cache.start(prompt("abc"), 0)
    assert first == second[:2]
    cache.end(first)
    cache.end(cache.start(prompt("z"), 0))
    assert cache.num_resident(prompt("abc")) == 3
    cache.end(second)
    assert cache.queue.num_free_blocks == 4


def test_a_smaller_cache_withholds_only_free_blocks() -> None:
    cache = model(6)
    running = cache.start(prompt("abcd"), 0)
    cache.resize(2)
    assert (cache.num_blocks, cache.queue.num_free_blocks) == (4, 0)
    cache.end(running)
    cache.resize(5)
    assert (cache.num_blocks, cache.queue.num_free_blocks) == (5, 5)


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "end", "resize", "forget"]), st.text("ab", max_size=6)),
        max_size=40,
    )
)
def test_every_block_is_free_withheld_or_in_use(steps: list[tuple[str, str]]) -> None:
    cache = model(10)
    running: list[list[ModelBlock]] = []
    for action, text in steps:
        if action == "start":
            running.append(cache.start(prompt(text), len(text) % 3))
        elif action == "resize":
            cache.resize(10 - len(text))
        elif action == "forget":
            cache.forget(prompt(text), len(text) // 2)
        elif running:
            cache.end(running.pop(len(text) % len(running)))
        used = {block.block_id for blocks in running for block in blocks}
        assert cache.queue.num_free_blocks == cache.num_blocks - len(used)
        cached = [b.block_hash for b in cache._blocks if b.block_hash is not None]
        assert len(cached) == len(set(cached)) == len(cache._cached)
        cache.queue.check_integrity()


def test_what_the_engine_evicted_is_forgotten_and_first_to_go() -> None:
    cache = model(6)
    cache.end(cache.start(prompt("abcd"), 0))
    running = cache.start(prompt("ab"), 0)
    cache.forget(prompt("abcd"), 1)
    assert cache.num_resident(prompt("abcd")) == 2  # b is in use, so the engine has it
    cache.end(running)
    cache.end(cache.start(prompt("wxyz"), 0))  # fits beside them
    assert cache.num_resident(prompt("ab")) == 2
