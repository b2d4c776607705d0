"""ThunderAgent: programs paused and resumed by their tokens, with hand-worked numbers.

A program has 16 tokens a block and 100 more; the cache has 40 blocks, which are 640 tokens.
"""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, requests

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.published.thunderagent import ThunderAgent

CAPACITY_TOKENS = 640


def path(name: str, num_blocks: int) -> list[bytes]:
    return [f"{name}{n}".encode() for n in range(num_blocks)]


def cache_of(acting: dict[str, int]) -> Cache:
    """A cache with programs at a tool, by their blocks; all programs were balanced at 0 s."""
    cache = Cache("thunderagent", 40)
    for name, num_blocks in acting.items():
        cache.run(name, path(name, num_blocks), served_s=0.0)
    return cache


def policy_of(cache: Cache) -> ThunderAgent:
    admission = cache.runtime.policies.admission
    assert isinstance(admission, ThunderAgent)
    return admission


def session_of(cache: Cache, name: str) -> Session:
    node = cache.runtime.tree.locate(f"{name}0".encode())
    assert node is not None
    return next(iter(node.tails))  # type: ignore[no-any-return]


def reason(cache: Cache, name: str, num_blocks: int) -> Turn:
    """A turn that runs, of a program with so many blocks."""
    turn = cache.arrive(name, path(name, num_blocks))
    cache.runtime.turn_started(turn)
    return turn


def balance(cache: Cache, at_s: float, waiting: list[Turn] | None = None) -> list[str]:
    """Let the policy balance programs then; returns the turns admitted."""
    cache.at(at_s)
    return requests(cache.admit(waiting or []).admitted)


def paused(cache: Cache) -> set[str]:
    """Names of paused programs."""
    programs = policy_of(cache)._paused_s
    return {session.tail.hashes[0].decode()[0] for session in programs}


def test_program_uses_its_tokens_and_a_hundred() -> None:
    cache = cache_of({"a": 5, "b": 8})
    # 5 * 16 + 100 + 8 * 16 + 100
    assert policy_of(cache)._used_tokens() == 180 + 228


def test_program_that_fits_exactly_is_not_paused() -> None:
    cache = cache_of({"a": 10})  # 260
    turn = cache.arrive("b", path("b", 17))  # 372: 632 in all
    assert balance(cache, 5.0, [turn]) == ["b"]
    assert policy_of(cache)._used_tokens() == CAPACITY_TOKENS - 8


def test_new_program_that_does_not_fit_waits() -> None:
    cache = cache_of({"a": 10, "b": 10})  # 520
    turn = cache.arrive("c", path("c", 10))  # 260 more: 780
    assert balance(cache, 5.0, [turn]) == []
    assert paused(cache) == {"c"}


def test_waiting_program_resumed_once_another_ends() -> None:
    cache = cache_of({"a": 10, "b": 10})
    turn = cache.arrive("c", path("c", 10))
    cache.runtime.session_closed(session_of(cache, "b"))
    assert balance(cache, 5.0, [turn]) == ["c"]  # 260 + 260


def test_smallest_program_at_a_tool_paused_first() -> None:
    cache = cache_of({"a": 5, "b": 8, "c": 5})  # 180 + 228 + 180
    reason(cache, "c", 12)  # c has 292 now: 700 in all
    balance(cache, 5.0)
    # Without a it is 520; a, of 180, does not fit again.
    assert paused(cache) == {"a"}


def test_program_at_a_tool_paused_before_a_smaller_running_one() -> None:
    cache = cache_of({"a": 12, "r": 3})  # 292 + 148
    reason(cache, "s", 3)  # 148
    reason(cache, "r", 7)  # r has 212 now: 652 in all
    balance(cache, 5.0)
    assert paused(cache) == {"a"}


def test_running_program_paused_once_none_is_at_a_tool() -> None:
    cache = cache_of({"a": 3, "r": 3, "s": 3})  # 148 each
    reason(cache, "r", 14)  # 324
    reason(cache, "s", 15)  # 340: 812 in all
    balance(cache, 5.0)
    # Without a it is 664, without r as well 340; then a fits again: 488, but r does not: 664.
    assert paused(cache) == {"r"}


def test_last_program_is_never_paused() -> None:
    cache = cache_of({"a": 10})
    reason(cache, "a", 60)  # 1060 alone
    balance(cache, 5.0)
    assert paused(cache) == set()


def test_largest_paused_program_that_fits_resumed_first() -> None:
    cache = cache_of({"a": 20})  # 420: 220 are left
    for name, num_blocks in (("b", 9), ("c", 7), ("d", 5)):  # 244, 212, 180
        policy_of(cache)._paused_s[reason(cache, name, num_blocks).session] = 0.0
    balance(cache, 5.0)
    # b does not fit; c does: 632; d does not any more.
    assert paused(cache) == {"b", "d"}


def test_program_that_waits_resumed_before_a_larger_one() -> None:
    cache = cache_of({"a": 20})  # 420: 220 are left
    for name, num_blocks in (("c", 7), ("d", 5)):  # 212, 180
        turn = cache.arrive(name, path(name, num_blocks))
        policy_of(cache)._paused_s[turn.session] = 0.0
    assert balance(cache, 5.0, [turn]) == ["d"]
    assert paused(cache) == {"c"}


def test_programs_are_balanced_every_five_seconds() -> None:
    cache = cache_of({"a": 10, "b": 10})  # balanced at 0 s
    turn = cache.arrive("c", path("c", 10))
    cache.runtime.session_closed(session_of(cache, "b"))
    assert balance(cache, 4.5, [turn]) == []
    assert balance(cache, 5.0, [turn]) == ["c"]
    assert balance(cache, 5.5, [turn]) == ["c"]


@pytest.mark.parametrize(("at_s", "is_resumed"), [(1800.0, False), (1805.0, True)])
def test_paused_program_resumed_after_half_an_hour(at_s: float, is_resumed: bool) -> None:
    cache = cache_of({"a": 10, "b": 10})
    turn = cache.arrive("c", path("c", 10))  # paused at 0 s
    assert balance(cache, at_s, [turn]) == (["c"] if is_resumed else [])


def test_idle_engine_starts_the_first_turn_though_paused() -> None:
    cache = cache_of({"a": 10, "b": 10})
    turns = [cache.arrive(name, path(name, 10)) for name in "cd"]
    assert requests(cache.admit(turns, num_running=0).admitted) == ["c"]
    assert paused(cache) == {"d"}


def test_turns_of_programs_not_paused_go_by_arrival() -> None:
    cache = cache_of({"a": 5, "b": 5})
    turns = [cache.arrive(name + "2", path(name, 6)) for name in "ba"]
    assert balance(cache, 5.0, turns) == ["b2", "a2"]
