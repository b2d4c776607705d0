"""CacheWise*: CacheWise's order by true pause lengths, with hand-worked numbers."""

from __future__ import annotations

import math

from tests.policies.host import HUMAN, TOOL, Cache, FixedOracle, hashes_of, requests

from holdfast.policies.base import PriorityClass


def test_residual_is_the_true_time_left() -> None:
    cache = Cache("cachewise-oracle", 16, FixedOracle({"a": 10.0}))
    session = cache.session("a", hashes_of("ab"))
    cache.at(4.0)
    assert cache.eviction.session_priority(session) == -6.0
    cache.at(12.0)
    assert cache.eviction.session_priority(session) == 0.0


def test_session_that_never_returns_is_infinitely_far() -> None:
    cache = Cache("cachewise-oracle", 16)
    assert cache.eviction.session_priority(cache.session("a", hashes_of("ab"))) == -math.inf


def test_session_in_the_engine_is_zero_seconds_away() -> None:
    cache = Cache("cachewise-oracle", 16)
    assert cache.eviction.session_priority(cache.arrive("a", hashes_of("a")).session) == 0.0


def test_longest_true_pause_evicted_first() -> None:
    cache = Cache("cachewise-oracle", 8, FixedOracle({"a": 10.0, "b": 100.0, "c": 1.0}))
    for name in "abcd":
        cache.run(name, hashes_of(name * 2))
    # d never returns; then 100 s, 10 s and 1 s.
    assert cache.evict(8) == ["dd", "d", "bb", "b", "aa", "a", "cc", "c"]


def test_human_evicted_before_a_tool_that_takes_longer() -> None:
    cache = Cache("cachewise-oracle", 4, FixedOracle({"human": 1.0, "tool": 1000.0}))
    cache.run("human", hashes_of("hh"), HUMAN)
    cache.run("tool", hashes_of("tt"), TOOL)
    assert cache.priority("hh")[0] == PriorityClass.AWAY
    assert cache.evict(2) == ["hh", "h"]


def test_turns_go_by_fewest_missing_blocks() -> None:
    cache = Cache("cachewise-oracle", 16)
    cache.run("a", hashes_of("aaaa"))
    waiting = [cache.arrive("b", hashes_of("bb")), cache.arrive("a2", hashes_of("aaaa1"))]
    assert requests(cache.admit(waiting).admitted) == ["a2", "b"]
