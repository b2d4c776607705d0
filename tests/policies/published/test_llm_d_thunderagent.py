"""llm-d's gate: space on demand from sessions idle past the lease, by hand-worked numbers.

A session has 16 tokens a block; the cache has 40 blocks, which are 640 tokens.
"""

from __future__ import annotations

import pytest
from tests.policies.host import TOOL, Cache, requests

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.published.llm_d_thunderagent import LlmdThunderAgent


def path(name: str, num_blocks: int) -> list[bytes]:
    return [f"{name}{n}".encode() for n in range(num_blocks)]


def cache_of(idle: dict[str, int], settings: str = "") -> Cache:
    """A cache with sessions idle since 0 s, by their blocks."""
    cache = Cache(f"llm-d-thunderagent{settings}", 40)
    for name, num_blocks in idle.items():
        cache.run(name, path(name, num_blocks), served_s=0.0)
    return cache


def policy_of(cache: Cache) -> LlmdThunderAgent:
    admission = cache.runtime.policies.admission
    assert isinstance(admission, LlmdThunderAgent)
    return admission


def session_of(cache: Cache, name: str) -> Session:
    node = cache.runtime.tree.locate(f"{name}0".encode())
    assert node is not None
    return next(iter(node.tails))  # type: ignore[no-any-return]


def admitted(cache: Cache, at_s: float, waiting: list[Turn]) -> list[str]:
    cache.at(at_s)
    return requests(cache.admit(waiting).admitted)


def paused(cache: Cache) -> set[Session]:
    return set(policy_of(cache)._paused)


def test_new_session_that_fits_exactly_is_admitted() -> None:
    cache = cache_of({"a": 20})  # 320 of 640
    assert admitted(cache, 1.0, [cache.arrive("b", path("b", 20))]) == ["b"]
    assert admitted(cache, 1.0, [cache.arrive("c", path("c", 21))]) == []


def test_idle_session_keeps_its_space_for_the_lease() -> None:
    cache = cache_of({"a": 30})
    turn = cache.arrive("b", path("b", 20))  # 480 + 320
    assert admitted(cache, 29.0, [turn]) == []
    assert admitted(cache, 30.0, [turn]) == ["b"]


def test_starting_turn_takes_space_from_the_longest_idle() -> None:
    cache = cache_of({"a": 15})
    cache.at(10.0)
    cache.run("b", path("b", 15), served_s=0.0)  # 480 of 640
    cache.at(60.0)
    turn = cache.arrive("c", path("c", 20))  # 320: one of 240 must go
    assert admitted(cache, 60.0, [turn]) == ["c"]
    assert paused(cache) == set()
    cache.runtime.turn_started(turn)
    assert paused(cache) == {session_of(cache, "a")}


def test_nothing_is_paused_for_a_session_that_fits() -> None:
    cache = cache_of({"a": 15})
    cache.at(60.0)
    cache.runtime.turn_started(cache.arrive("c", path("c", 20)))
    assert paused(cache) == set()


def test_paused_session_must_fit_again_and_goes_before_new_ones() -> None:
    cache = cache_of({"a": 15})
    cache.at(60.0)
    running = cache.arrive("c", path("c", 30))  # 480 of 640: a releases its space
    cache.runtime.turn_started(running)
    returning, new = cache.arrive("a2", path("a", 16)), cache.arrive("n", path("n", 5))
    # Of 160 the paused one needs 256, the new one 80: it holds up no other.
    assert admitted(cache, 60.0, [returning, new]) == ["n"]
    cache.runtime.turn_ended(running, path("c", 30), TOOL)
    assert admitted(cache, 90.0, [new, returning]) == ["a2", "n"]


def test_admitted_session_that_outgrows_the_cache_starts() -> None:
    cache = cache_of({"a": 20, "b": 20})
    turn = cache.arrive("a2", path("a", 24))  # 384 + 320
    assert admitted(cache, 40.0, [turn]) == ["a2"]
    cache.runtime.turn_started(turn)
    assert paused(cache) == {session_of(cache, "b")}


def test_smallest_new_session_admitted_first() -> None:
    cache = cache_of({"a": 10})
    turns = [cache.arrive(name, path(name, n)) for name, n in (("b", 20), ("c", 12), ("d", 4))]
    # 480 are left: d of 64 and c of 192 leave 224; b needs 320.
    assert admitted(cache, 1.0, turns) == ["d", "c"]


def test_session_larger_than_the_cache_needs_all_of_it() -> None:
    cache = cache_of({"a": 10})
    turn = cache.arrive("b", path("b", 50))  # 800, of which 640 count
    assert admitted(cache, 29.0, [turn]) == []
    assert admitted(cache, 30.0, [turn]) == ["b"]


@pytest.mark.parametrize(("at_s", "starts"), [(49.0, []), (50.0, ["c", "a2"])])
def test_starving_turn_starts_before_all_others(at_s: float, starts: list[str]) -> None:
    cache = cache_of({"a": 20}, ":starvation_s=50:idle_lease_s=1000")
    starving = cache.arrive("c", path("c", 30))
    cache.at(40.0)
    turn = cache.arrive("a2", path("a", 21))
    assert admitted(cache, at_s, [turn, starving]) == (starts or ["a2"])


def test_util_threshold_lowers_the_ceiling() -> None:
    cache = cache_of({"a": 20}, ":util_threshold=0.75")  # 320 of 480
    assert admitted(cache, 1.0, [cache.arrive("b", path("b", 10))]) == ["b"]
    assert admitted(cache, 1.0, [cache.arrive("c", path("c", 11))]) == []


def test_ended_session_frees_its_space_at_once() -> None:
    cache = cache_of({"a": 30})
    turn = cache.arrive("b", path("b", 20))
    cache.runtime.session_closed(session_of(cache, "a"))
    assert admitted(cache, 1.0, [turn]) == ["b"]


def test_session_idle_past_its_time_to_live_is_new_again() -> None:
    cache = cache_of({"a": 5}, ":eviction_ttl_s=100")
    cache.at(100.0)
    cache.step()
    assert session_of(cache, "a") in policy_of(cache)._admitted
    cache.at(110.0)
    cache.step()
    assert session_of(cache, "a") not in policy_of(cache)._admitted


def test_only_admitted_sessions_are_not_held() -> None:
    cache = cache_of({"a": 5})
    new = cache.arrive("b", path("b", 5)).session
    assert policy_of(cache).holds(new) and not policy_of(cache).holds(session_of(cache, "a"))
