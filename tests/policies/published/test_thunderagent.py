"""ThunderAgent: programs paused and resumed by their tokens, with hand-worked numbers.

A program has 16 tokens a block and 100 more; the cache has 40 blocks, which are 640 tokens.
"""

from __future__ import annotations

import pytest
from tests.policies.host import TOOL, Cache, requests

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.published.thunderagent import ThunderAgent

NO_DECAY = ":acting_half_life_s=inf"


def path(name: str, num_blocks: int) -> list[bytes]:
    return [f"{name}{n}".encode() for n in range(num_blocks)]


def cache_of(acting: dict[str, int], settings: str = "") -> Cache:
    """A cache with programs at a tool, by their blocks; all programs were balanced at 0 s."""
    cache = Cache(f"thunderagent{settings}", 40)
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
    cache.step()
    return requests(cache.admit(waiting or []).admitted)


def paused(cache: Cache) -> set[str]:
    """Names of paused programs."""
    return {name_of(session) for session in policy_of(cache)._paused}


def name_of(session: Session) -> str:
    path_hashes = [h for node in session.tail.path() for h in node.hashes]
    return str(path_hashes[0].decode()[0])


def pause(cache: Cache, *names: str) -> None:
    """Pause programs."""
    for name in names:
        policy_of(cache)._paused[session_of(cache, name)] = None


def space(cache: Cache, *, decays: bool = False) -> float:
    return policy_of(cache)._space_tokens(decays=decays)


# What programs use.


def test_program_uses_its_tokens_and_a_hundred() -> None:
    cache = cache_of({"a": 5, "b": 8})
    # Of 640: 5 blocks and 8 blocks, and 100 tokens for each program.
    assert space(cache) == 640 - 180 - 228


def test_running_programs_use_what_they_share_once() -> None:
    cache = cache_of({})
    first = cache.arrive("a", [*path("s", 4), b"a"])
    second = cache.arrive("b", [*path("s", 4), b"b"])
    for turn in (first, second):
        cache.runtime.turn_started(turn)
    assert space(cache) == 640 - 2 * 180
    balance(cache, 0.0)  # 64 tokens are the same
    assert space(cache) == 640 - 2 * 180 + 64


def test_programs_at_a_tool_weigh_less_by_the_second() -> None:
    cache = cache_of({"a": 10})
    reason(cache, "b", 5)  # 180
    cache.at(3.0)
    # 160 / 8 + 100 + 180
    assert space(cache, decays=True) == 640 - 120 - 180
    assert space(cache) == 640 - 260 - 180


def test_half_life_without_end_is_no_decay() -> None:
    cache = cache_of({"a": 10}, ":acting_half_life_s=inf:acting_weight=0.5")
    cache.at(30.0)
    assert space(cache, decays=True) == space(cache) == 640 - 80 - 100


def test_capacity_share_of_half_the_cache() -> None:
    cache = cache_of({"a": 5}, ":capacity_share=0.5:buffer_tokens=10")
    assert space(cache) == 320 - 80 - 10


# Who is active.


def test_new_program_that_fits_exactly_is_active() -> None:
    cache = cache_of({"a": 10})  # 260: 380 are left
    turn = cache.arrive("b", path("b", 17))  # 272 + 100
    assert balance(cache, 1.0, [turn]) == ["b"]
    assert paused(cache) == set()


def test_new_program_that_does_not_fit_waits() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY)  # 520
    turn = cache.arrive("c", path("c", 10))  # 260 more: 780
    assert balance(cache, 1.0, [turn]) == []
    assert paused(cache) == {"c"}


def test_new_program_waits_after_paused_ones() -> None:
    cache = cache_of({"a": 10, "b": 5})
    pause(cache, "a")
    cache.arrive("c", path("c", 1))
    assert paused(cache) == {"a", "c"}


def test_decay_makes_space_for_a_waiting_program() -> None:
    cache = cache_of({"a": 10, "b": 10})  # 520, and 200 once they have decayed
    turn = cache.arrive("c", path("c", 10))
    assert balance(cache, 4.9, [turn]) == []
    assert balance(cache, 5.0, [turn]) == ["c"]
    # At full weight it is 780: one of the others, of 260, pauses.
    assert paused(cache) == {"a"}


def test_waiting_program_resumed_once_another_ends() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY)
    turn = cache.arrive("c", path("c", 10))
    cache.runtime.session_closed(session_of(cache, "b"))
    assert space(cache) == 640 - 260
    assert balance(cache, 5.0, [turn]) == ["c"]  # 260 + 260
    assert session_of(cache, "a") in policy_of(cache)._programs
    assert len(policy_of(cache)._programs) == 2


def test_released_gate_starves_where_no_end_is_known() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY)
    turn = cache.arrive("c", path("c", 10))
    assert balance(cache, 1500.0, [turn]) == []


# Pauses.


def test_smallest_program_at_a_tool_paused_first() -> None:
    cache = cache_of({"a": 5, "b": 8, "c": 5})  # 180 + 228 + 180
    reason(cache, "c", 12)  # c has 292 now: 700 in all
    balance(cache, 5.0)
    assert paused(cache) == {"a"}  # 520


def test_program_at_a_tool_paused_before_a_smaller_running_one() -> None:
    cache = cache_of({"a": 12, "r": 3})  # 292 + 148
    reason(cache, "s", 3)  # 148
    reason(cache, "r", 7)  # r has 212 now: 652 in all
    balance(cache, 5.0)
    assert paused(cache) == {"a"}


def test_all_running_programs_pause_when_their_turns_end() -> None:
    cache = cache_of({"a": 3, "r": 3, "s": 3})  # 148 each
    first = reason(cache, "r", 14)  # 324
    reason(cache, "s", 15)  # 340: 812 in all, 664 without a
    balance(cache, 5.0)
    assert paused(cache) == {"a"}
    cache.runtime.turn_ended(first, path("r", 14), TOOL)
    assert paused(cache) == {"a", "r"}
    balance(cache, 10.0)  # 340: r, of 324, does not fit, a does
    assert paused(cache) == {"r"}


def test_idle_lease_pauses_a_program_that_fits() -> None:
    cache = cache_of({"a": 10}, ":idle_lease_s=30")
    balance(cache, 30.0)
    assert paused(cache) == set()
    balance(cache, 35.0)  # and resumed at once, as nothing else needs the space
    assert policy_of(cache)._released == {session_of(cache, "a"): (35.0, 0)}


def test_idle_lease_makes_space_at_full_weight() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY + ":idle_lease_s=30")
    turn = cache.arrive("c", path("c", 10))
    assert balance(cache, 30.0, [turn]) == []
    assert balance(cache, 35.0, [turn]) == ["c"]
    # 260 for c, then 260 for one of the two at a tool.
    assert len(paused(cache)) == 1


# Resumes.


def test_smallest_waiting_programs_that_fit_are_resumed() -> None:
    cache = cache_of({"a": 10}, NO_DECAY)  # 260: 380 are left
    turns = [cache.arrive(name, path(name, n)) for name, n in (("b", 9), ("c", 5), ("d", 4))]
    pause(cache, "b", "c", "d")
    # d of 164 and c of 180 fit: 36 are left, b of 244 does not fit. c, the larger, goes first.
    assert balance(cache, 5.0, turns) == ["c", "d"]
    assert paused(cache) == {"b"}


def test_returning_program_resumed_before_a_smaller_new_one() -> None:
    cache = cache_of({"a": 10, "r": 10}, NO_DECAY)
    pause(cache, "r")
    returning = cache.arrive("r2", path("r", 12))  # 292 of 380
    new = cache.arrive("n", path("n", 3))  # 148
    assert balance(cache, 5.0, [returning, new]) == ["r2"]
    assert paused(cache) == {"n"}


def test_new_program_resumed_before_one_at_a_tool() -> None:
    cache = cache_of({"a": 10}, NO_DECAY)
    for blocks in (2, 3):
        cache.run(f"t{blocks}", path("t", blocks), served_s=0.0)
    pause(cache, "t")  # 148
    new = cache.arrive("n", path("n", 13))  # 308 of 380
    assert balance(cache, 5.0, [new]) == ["n"]
    assert paused(cache) == {"t"}


def test_programs_are_balanced_every_period() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY + ":period_s=8")  # balanced at 0 s
    turn = cache.arrive("c", path("c", 10))
    cache.runtime.session_closed(session_of(cache, "b"))
    assert balance(cache, 7.5, [turn]) == []
    assert balance(cache, 8.0, [turn]) == ["c"]
    assert balance(cache, 8.5, [turn]) == ["c"]


@pytest.mark.parametrize(("at_s", "is_resumed"), [(1799.0, False), (1805.0, True)])
def test_turn_starts_after_half_an_hour(at_s: float, is_resumed: bool) -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY)
    turn = cache.arrive("c", path("c", 10))  # waits since 0 s
    assert balance(cache, at_s, [turn]) == (["c"] if is_resumed else [])


def test_half_an_hour_counts_from_the_turn_not_the_pause() -> None:
    cache = cache_of({"a": 20, "c": 10}, NO_DECAY)
    pause(cache, "c")
    reason(cache, "a", 25)
    cache.at(1800.0)
    turn = cache.arrive("c2", path("c", 11))
    assert balance(cache, 1810.0, [turn]) == []
    assert balance(cache, 3600.0, [turn]) == ["c2"]


# Order.


def test_idle_engine_starts_the_first_turn_though_paused() -> None:
    cache = cache_of({"a": 10, "b": 10}, NO_DECAY)
    turns = [cache.arrive(name, path(name, 10)) for name in "cd"]
    (first,) = cache.admit(turns, num_running=0).admitted
    assert first.request_id == "c"
    cache.runtime.turn_started(first)
    assert paused(cache) == {"d"}


def test_turns_of_active_programs_go_by_arrival() -> None:
    cache = cache_of({"a": 5, "b": 5})
    turns = [cache.arrive(name + "2", path(name, 6)) for name in "ba"]
    assert balance(cache, 1.0, turns) == ["b2", "a2"]


def test_resumed_turn_goes_after_those_sent_before() -> None:
    cache = cache_of({"a": 5, "b": 5})
    pause(cache, "a")
    resumed = cache.arrive("a2", path("a", 6))
    cache.at(2.0)
    sent = cache.arrive("b2", path("b", 6))
    assert balance(cache, 5.0, [resumed, sent]) == ["b2", "a2"]


def test_admission_changes_nothing() -> None:
    cache = cache_of({"a": 10, "b": 10})
    turns = [cache.arrive(name, path(name, 10)) for name in "cd"]
    policy = policy_of(cache)
    before = (dict(policy._paused), dict(policy._programs), dict(policy._released))
    cache.at(100.0)
    cache.admit(turns)
    assert before == (policy._paused, policy._programs, policy._released)


def test_held_programs_are_those_paused() -> None:
    cache = cache_of({"a": 5, "b": 5})
    pause(cache, "a")
    holds = policy_of(cache).holds
    assert holds(session_of(cache, "a")) and not holds(session_of(cache, "b"))
