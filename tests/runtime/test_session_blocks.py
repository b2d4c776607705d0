"""Session blocks: paths in the prefix tree, and free blocks and reservations that follow them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.runtime.session_blocks import SessionBlocks


@pytest.fixture
def cache() -> Cache:
    return Cache("marconi", 40)


def blocks_of(cache: Cache) -> SessionBlocks:
    return cache.runtime._blocks


def path_of(session: Session) -> list[str]:
    """The last block of each node of a session's path, deepest first."""
    return [node.hashes[-1].decode() for node in session.tail.path()]


def node_of(cache: Cache, prefix: str) -> Node[Any]:
    node = cache.runtime.tree.locate(prefix.encode())
    assert node is not None
    return node


def test_prompt_becomes_the_sessions_path(cache: Cache) -> None:
    session = cache.session("a", hashes_of("abc"))
    assert path_of(session) == ["abc"]
    assert session.tail is session.prompt_tail
    assert session.tail.tails == session.tail.prompts == {session}
    assert session.prompt_blocks == 3


def test_longer_prompt_moves_the_session_down(cache: Cache) -> None:
    session = cache.session("a", hashes_of("abc"))
    cache.session("a2", hashes_of("abcde"))
    assert path_of(session) == ["abcde"]
    assert session.tail.tails == session.tail.prompts == {session}
    cache.check()


def test_prompts_that_part_split_a_node(cache: Cache) -> None:
    first = cache.session("a", hashes_of("ssaa"))
    second = cache.arrive("b", hashes_of("ssb")).session
    assert path_of(first) == ["ssaa", "ss"]
    assert path_of(second) == ["ssb", "ss"]
    # Free blocks follow their content.
    assert [node_of(cache, p).free_blocks.num_blocks for p in ("ss", "ssaa", "ssb")] == [2, 2, 0]
    cache.check()


def test_empty_prompt_has_the_root_as_its_path(cache: Cache) -> None:
    session = cache.session("a", [])
    assert session.tail is cache.runtime.tree.root
    assert not session.tail.is_endpoint


def test_answer_lengthens_the_path_beyond_the_prompt(cache: Cache) -> None:
    turn = cache.arrive("a", hashes_of("abc"))
    session = turn.session
    blocks_of(cache).append_answer(session, hashes_of("abcxy"))
    assert path_of(session) == ["abcxy", "abc"]
    assert session.prompt_tail.hashes[-1] == b"abc"
    assert session.prompt_tail.prompts == {session} == session.tail.tails
    assert not session.prompt_tail.tails and not session.tail.prompts


def test_answer_within_the_prompt_changes_nothing(cache: Cache) -> None:
    session = cache.arrive("a", hashes_of("abc")).session
    blocks_of(cache).append_answer(session, hashes_of("abc"))
    assert path_of(session) == ["abc"]


def test_dropped_session_leaves_shared_nodes_to_others(cache: Cache) -> None:
    first, second = (cache.session(name, hashes_of("ss" + name)) for name in "ab")
    blocks_of(cache).drop(first)
    assert cache.runtime.tree.locate(b"ssa") is None
    assert path_of(second) == ["ssb", "ss"]
    # What it had alone is evicted first.
    assert cache.evict(1) == ["ssa"]
    cache.check()


def test_last_session_of_a_path_takes_all_nodes_with_it(cache: Cache) -> None:
    for name in "ab":
        cache.session(name, hashes_of("ss" + name))
    for session in list(cache.runtime.sessions):
        blocks_of(cache).drop(session)
    assert len(cache.runtime.tree) == 0


def test_reservation_covers_the_whole_path(cache: Cache) -> None:
    first, second = (cache.session(name, hashes_of("ss" + name)) for name in "ab")
    blocks_of(cache).reserve(first)
    assert [node_of(cache, p).num_reservations for p in ("ss", "ssa", "ssb")] == [1, 1, 0]
    assert cache.queue.num_reserved_blocks == 3
    blocks_of(cache).reserve(second)
    assert [node_of(cache, p).num_reservations for p in ("ss", "ssa", "ssb")] == [2, 1, 1]
    assert cache.queue.num_reserved_blocks == 4
    cache.check()


def test_reservation_is_made_and_released_once(cache: Cache) -> None:
    session = cache.session("a", hashes_of("abc"))
    for _ in range(2):
        blocks_of(cache).reserve(session)
    assert node_of(cache, "abc").num_reservations == 1
    for _ in range(2):
        blocks_of(cache).release(session)
    assert (node_of(cache, "abc").num_reservations, session.has_reservation) == (0, False)
    assert cache.queue.num_reserved_blocks == 0


def test_only_blocks_reserved_by_one_session_are_freed_by_it(cache: Cache) -> None:
    first, second = (cache.session(name, hashes_of("ss" + name * 3)) for name in "ab")
    for session in (first, second):
        blocks_of(cache).reserve(session)
    assert blocks_of(cache).freed_by(first) == 3  # not the two that both reserve
    blocks_of(cache).release(second)
    assert blocks_of(cache).freed_by(first) == 5


def test_running_turns_blocks_are_not_freed(cache: Cache) -> None:
    session = cache.session("a", hashes_of("ssa"))
    blocks_of(cache).reserve(session)
    cache.start(cache.arrive("b", hashes_of("ssb")))  # uses two of the three
    assert blocks_of(cache).freed_by(session) == 1


def test_split_keeps_both_halves_reserved(cache: Cache) -> None:
    session = cache.session("a", hashes_of("ssaa"))
    blocks_of(cache).reserve(session)
    cache.session("b", hashes_of("ssb"))
    assert [node_of(cache, p).num_reservations for p in ("ss", "ssaa", "ssb")] == [1, 1, 0]
    assert cache.queue.num_reserved_blocks == 4
    cache.check()
