"""Shortest remaining work first, with hand-worked numbers."""

from __future__ import annotations

from tests.policies.host import Cache, FixedOracle, hashes_of

from holdfast.core.turn import Turn
from holdfast.policies.bounds.remaining_work import RemainingWork


def cold_turns(cache: Cache, *request_ids: str) -> list[Turn]:
    turns = [cache.arrive(name, hashes_of(name * 4)) for name in request_ids]
    for turn in turns:
        turn.resident_blocks, turn.missing_blocks, turn.demand_blocks = 0, 4, 4
    return turns


def test_cold_turn_of_least_remaining_work_comes_first() -> None:
    cache = Cache("shortest-remaining", 16, FixedOracle(work={"a": 900.0, "b": 20.0, "c": 500.0}))
    turns = cold_turns(cache, "a", "b", "c")
    admission = cache.runtime.admit(turns, blocks=8, slots=8, num_running=1)
    assert [turn.request_id for turn in admission.admitted] == ["b", "c"]


def test_warm_turn_comes_before_shorter_cold_ones() -> None:
    cache = Cache("shortest-remaining", 16, FixedOracle(work={"a": 900.0, "b": 20.0}))
    turns = cold_turns(cache, "a", "b")
    turns[0].resident_blocks, turns[0].missing_blocks = 3, 1
    admission = cache.runtime.admit(turns, blocks=4, slots=8, num_running=1)
    assert [turn.request_id for turn in admission.admitted] == ["a"]


def test_due_turn_comes_before_shorter_ones() -> None:
    cache = Cache("shortest-remaining", 16, FixedOracle(work={"a": 900.0, "b": 20.0}))
    turns = cold_turns(cache, "a", "b")
    turns[0].due_s = 0.0
    admission = cache.runtime.admit(turns, blocks=4, slots=8, num_running=1)
    assert [turn.request_id for turn in admission.admitted] == ["a"]


def test_ended_session_has_no_reservation_and_no_priority() -> None:
    cache = Cache("shortest-remaining", 16, FixedOracle({"a": 5.0}))
    going_on, ended = cache.session("a", hashes_of("ab")), cache.session("z", hashes_of("yz"))
    assert going_on.has_reservation and not ended.has_reservation
    assert cache.eviction.session_priority(going_on) > 0.0
    assert cache.eviction.session_priority(ended) == 0.0


def test_remaining_work_is_that_of_the_last_turn() -> None:
    cache = Cache("shortest-remaining", 16, FixedOracle({"a1": 5.0}, work={"a1": 9.0, "a2": 4.0}))
    work = cache.runtime.shared(RemainingWork)
    session = cache.session("a1", hashes_of("ab"))
    assert (work.left(session), work.ends(session)) == (9.0, False)
    assert cache.arrive("a2", hashes_of("abc")).session is session
    assert (work.left(session), work.ends(session)) == (4.0, True)
