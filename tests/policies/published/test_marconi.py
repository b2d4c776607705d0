"""Marconi: recency plus FLOP efficiency, each min-max scaled, with hand-worked numbers.

Recency is 1 / (now - last access); a node's efficiency is its start plus its end, but for a factor
and a summand that scaling removes.
"""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass


def use(cache: Cache, name: str, at_s: float, prompt: str) -> Session:
    """Run a turn that takes no time."""
    cache.at(at_s)
    return cache.session(name, hashes_of(prompt))


def three_sessions(settings: str = "") -> tuple[Cache, list[Session]]:
    """Sessions of 8, 5 and 2 blocks, last used at 0, 6 and 8 s, rescored at 10 s.

    The first two share three blocks: nodes are 0-3, 3-8 and 3-5, and 0-2.
    """
    cache = Cache(f"marconi{settings}", 100)
    prompts = {"a": (0.0, "sssaaaaa"), "b": (6.0, "sssbb"), "c": (8.0, "cc")}
    sessions = [use(cache, name, at_s, prompt) for name, (at_s, prompt) in prompts.items()]
    cache.at(10.0)
    cache.rescore()
    return cache, sessions


def test_recency_is_scaled_from_the_least_to_the_most() -> None:
    cache, sessions = three_sessions()
    # 1 / 10, 1 / 4 and 1 / 2: (0.25 - 0.1) / 0.4
    assert [s.retention_priority for s in sessions] == pytest.approx([0.0, 0.375, 1.0])
    assert cache.eviction.session_priority(sessions[1]) == pytest.approx(0.375)


def test_efficiency_is_scaled_over_nodes_with_at_most_one_child() -> None:
    cache, sessions = three_sessions()
    for session in sessions:
        session.retention_priority = 0.0
    # 3 + 8 = 11, 3 + 5 = 8 and 0 + 2 = 2; the shared node, 3, has two children and no say.
    assert cache.priority("sssaaaaa")[1] == 1.0
    assert cache.priority("sssbb")[1] == pytest.approx(6 / 9)
    assert cache.priority("cc")[1] == 0.0
    assert cache.priority("sss")[1] == pytest.approx(1 / 9)


@pytest.mark.parametrize(("settings", "alpha"), [("", 1.0), (":alpha=0.5", 0.5), (":alpha=0", 0.0)])
def test_priority_adds_recency_and_alpha_times_efficiency(settings: str, alpha: float) -> None:
    cache, _ = three_sessions(settings)
    priority_class, priority = cache.priority("sssbb")
    assert priority_class == PriorityClass.LIVE
    assert priority == pytest.approx(0.375 + alpha * 6 / 9)


def test_shared_node_has_the_recency_of_its_last_use() -> None:
    cache, _ = three_sessions(":alpha=0")
    assert cache.priority("sss")[1] == pytest.approx(0.375)


def test_value_outside_of_the_scale_is_cut() -> None:
    cache, _ = three_sessions()
    cache.at(10.0)
    deep = cache.session("d", hashes_of("d" * 20))  # used now, and deeper than all others
    assert deep.retention_priority == 1.0
    assert cache.priority("d" * 20)[1] == 2.0


def test_shallow_node_evicted_before_a_deep_one() -> None:
    cache = Cache("marconi", 14)
    use(cache, "deep", 0.0, "a" * 8)
    use(cache, "short", 2.0, "bbbb")
    use(cache, "new", 9.0, "cc")
    cache.at(10.0)
    cache.rescore()
    # Recency 0.1, 0.125 and 1, scaled 0, 0.028, 1; depth 8, 4 and 2, scaled 1, 0.333, 0.
    assert cache.evict(4) == ["bbbb", "bbb", "bb", "b"]


def test_least_recently_used_of_equal_depths_evicted_first() -> None:
    cache = Cache("marconi", 8)
    use(cache, "early", 0.0, "aaaa")
    use(cache, "late", 0.5, "bbbb")
    use(cache, "early2", 0.75, "aaaa")
    cache.at(1.0)
    cache.rescore()
    assert cache.evict(4) == ["bbbb", "bbb", "bb", "b"]


@pytest.mark.parametrize(("settings", "steps"), [("", 8), (":rescore_steps=3", 3)])
def test_priorities_are_rescored_every_so_many_steps(settings: str, steps: int) -> None:
    cache = Cache(f"marconi{settings}", 100)
    use(cache, "a", 0.0, "a")
    session = use(cache, "b", 1.0, "b")
    cache.rescore()
    cache.at(10.0)
    use(cache, "c", 10.0, "c")
    before = session.retention_priority
    cache.runtime.step(steps - 2)
    assert session.retention_priority == before
    cache.runtime.step(2)
    cache.runtime.step()
    assert session.retention_priority != before
