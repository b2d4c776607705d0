"""Reservations for truly short pauses, with hand-worked numbers."""

from __future__ import annotations

from tests.policies.host import Cache, FixedOracle, hashes_of

from holdfast.policies.admission import Admission


def admission_of(demands: dict[str, int], blocks: int, *, num_running: int = 1) -> Admission:
    """What is admitted beside an idle session of four blocks that returns in 10 s."""
    cache = Cache("true-reservations", 16, FixedOracle({"idle": 10.0}))
    cache.run("idle", hashes_of("wxyz"))
    turns = [cache.arrive(name, hashes_of(name * 4)) for name in demands]
    for turn in turns:
        turn.missing_blocks = turn.demand_blocks = demands[turn.request_id]
    return cache.runtime.admit(turns, blocks=blocks, slots=8, num_running=num_running)


def test_pause_of_at_most_a_minute_gets_a_reservation() -> None:
    cache = Cache("true-reservations", 16, FixedOracle({"a": 60.0, "b": 60.1}))
    assert cache.session("a", hashes_of("ab")).has_reservation
    assert not cache.session("b", hashes_of("cd")).has_reservation


def test_longest_reserved_pause_is_a_setting() -> None:
    cache = Cache("true-reservations:hold_s=5", 16, FixedOracle({"a": 5.0, "b": 5.1}))
    assert cache.session("a", hashes_of("ab")).has_reservation
    assert not cache.session("b", hashes_of("cd")).has_reservation


def test_fewest_missing_blocks_come_first_and_pass_others() -> None:
    admitted = admission_of({"a": 9, "b": 3, "c": 2}, blocks=6).admitted
    assert [turn.request_id for turn in admitted] == ["c", "b"]


def test_least_remaining_work_may_come_first() -> None:
    work = {"a": 9.0, "b": 3.0, "c": 5.0}
    cache = Cache("true-reservations:order=remaining", 16, FixedOracle(work=work))
    turns = [cache.arrive(name, hashes_of(name * 4)) for name in work]
    for turn, missing in zip(turns, (1, 4, 3), strict=True):
        turn.resident_blocks, turn.missing_blocks = 4 - missing, missing
        turn.demand_blocks = missing
    admission = cache.runtime.admit(turns, blocks=8, slots=8, num_running=1)
    assert [turn.request_id for turn in admission.admitted] == ["a", "b", "c"]


def test_reservation_is_kept_while_anything_runs() -> None:
    admission = admission_of({"a": 9}, blocks=6)
    assert not admission.admitted and not admission.released


def test_first_turn_takes_reservations_while_nothing_runs() -> None:
    admission = admission_of({"a": 9, "b": 8}, blocks=6, num_running=0)
    assert [turn.request_id for turn in admission.admitted] == ["b"]
    assert len(admission.released) == 1


def test_ended_then_longest_idle_session_is_evicted_first() -> None:
    cache = Cache("true-reservations", 6, FixedOracle({"a": 100.0, "b": 1.0}))
    for now_s, name in ((1.0, "a"), (2.0, "b"), (3.0, "c")):
        cache.at(now_s)
        cache.run(name, hashes_of(name * 2))
    assert cache.evict(6) == ["cc", "c", "aa", "a", "bb", "b"]
