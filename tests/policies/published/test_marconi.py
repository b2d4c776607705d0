"""Marconi: recency plus FLOP efficiency, with hand-worked numbers.

Recency is 1 ms (or the shortest time between two uses of a session, if less) over the time since
the last use; efficiency is a node's mean depth over the greatest depth seen.
"""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass

MS = 1e-3


def use(cache: Cache, name: str, at_s: float, prompt: str) -> Session:
    """Run a turn that takes no time."""
    cache.at(at_s)
    return cache.session(name, hashes_of(prompt))


def test_recency_is_the_inverse_of_the_time_since_last_use() -> None:
    cache = Cache("marconi", 100)
    session = use(cache, "a", 0.0, "aaaa")
    cache.at(0.5)
    assert cache.eviction.session_priority(session) == pytest.approx(0.002)  # 1 ms / 500 ms
    cache.at(2.0)
    assert cache.eviction.session_priority(session) == pytest.approx(0.0005)


def test_recency_is_one_right_after_use() -> None:
    cache = Cache("marconi", 100)
    session = use(cache, "a", 1.0, "aaaa")
    assert cache.eviction.session_priority(session) == 1.0


def test_shortest_time_between_uses_scales_recency() -> None:
    cache = Cache("marconi", 100)
    use(cache, "a", 1.0, "aa")
    session = use(cache, "a2", 1.00025, "aaa")  # 0.25 ms later
    cache.at(1.00125)  # 1 ms later
    assert cache.eviction.session_priority(session) == pytest.approx(0.25, rel=1e-6)


def test_efficiency_is_mean_depth_over_the_greatest() -> None:
    cache = Cache("marconi", 100)
    deep = use(cache, "a", 0.0, "sssaaaaa")  # 8 blocks
    short = use(cache, "b", 0.0, "sssbb")  # shares three: the nodes are 0-3, 3-8 and 3-5
    deep.retention_priority = short.retention_priority = 0.0
    # FLOPs saved relative to the parent, for each byte: (start + end) / 2, of 8.
    assert cache.priority("sss")[1] == pytest.approx(1.5 / 8)
    assert cache.priority("sssaaaaa")[1] == pytest.approx(5.5 / 8)
    assert cache.priority("sssbb")[1] == pytest.approx(4.0 / 8)


def test_priority_adds_recency_and_efficiency() -> None:
    cache = Cache("marconi", 100)
    session = use(cache, "a", 0.0, "aaaa")
    session.retention_priority = 0.25
    # alpha 1: 0.25 + 1 * (0 + 4) / 2 / 4
    assert cache.priority("aaaa") == (PriorityClass.LIVE, 0.75)


def test_shared_node_has_the_recency_of_its_last_use() -> None:
    cache = Cache("marconi", 100)
    early, late = use(cache, "a", 0.0, "ssa"), use(cache, "b", 1.0, "ssb")
    early.retention_priority, late.retention_priority = 0.125, 0.5
    # Efficiency: (0 + 2) / 2 of 3.
    assert cache.priority("ss")[1] == pytest.approx(0.5 + 1 / 3)


def test_shallow_node_evicted_before_a_deep_one() -> None:
    cache = Cache("marconi", 12)
    use(cache, "deep", 0.0, "a" * 8)  # efficiency 4 / 8
    use(cache, "short", 0.5, "bbbb")  # 2 / 8; 500 ms more recent
    cache.at(1.0)
    cache.rescore()
    # The deep one has 0.001 + 0.5, the short one 0.002 + 0.25.
    assert cache.evict(4) == ["bbbb", "bbb", "bb", "b"]


def test_least_recently_used_of_equal_depths_evicted_first() -> None:
    cache = Cache("marconi", 8)
    use(cache, "early", 0.0, "aaaa")
    use(cache, "late", 0.5, "bbbb")
    use(cache, "early2", 0.75, "aaaa")
    cache.at(1.0)
    cache.rescore()
    # b: 1 / 500 ms, a: 1 / 250 ms
    assert cache.evict(4) == ["bbbb", "bbb", "bb", "b"]


def test_priorities_are_rescored_every_eight_steps() -> None:
    cache = Cache("marconi", 100)
    session = use(cache, "a", 0.0, "a")  # runs in the first step
    cache.at(0.5)
    cache.runtime.step(7)
    assert session.retention_priority == 1.0
    cache.runtime.step()
    assert session.retention_priority == pytest.approx(MS / 0.5)
