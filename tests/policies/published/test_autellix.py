"""Autellix: queues by attained service, and promotion of starved turns, with hand-worked numbers.

Queue k (0 to 7) takes sessions served less than 2^k seconds; the last takes all others.
"""

from __future__ import annotations

import pytest
from tests.policies.host import Cache, hashes_of, requests

from holdfast.core.turn import Turn
from holdfast.policies.published.autellix import Autellix


def served(seconds: dict[str, float]) -> Cache:
    """A cache whose sessions, named by one letter, were served that long and never waited."""
    cache = Cache("autellix", 100)
    for name, served_s in seconds.items():
        cache.run(name, hashes_of(name), served_s=served_s)
    return cache


def return_all(cache: Cache, names: str) -> list[Turn]:
    """Each session's next turn, which arrives now."""
    return [cache.arrive(name + "2", hashes_of(name + "2")) for name in names]


def queue_of(cache: Cache, turn: Turn) -> int:
    admission = cache.runtime.policies.admission
    assert isinstance(admission, Autellix)
    return admission._queue(turn, cache.now_s)


@pytest.mark.parametrize(
    ("served_s", "queue"),
    [
        (0.5, 0),  # below 1
        (1.0, 1),  # 1 <= 1 < 2
        (1.5, 1),
        (2.0, 2),  # 2 <= 2 < 4
        (3.5, 2),
        (63.0, 6),  # 32 <= 63 < 64
        (64.0, 7),
        (1000.0, 7),  # the last queue has no upper bound
    ],
)
def test_queue_doubles_from_one_second(served_s: float, queue: int) -> None:
    cache = served({"a": served_s})
    (turn,) = return_all(cache, "a")
    assert queue_of(cache, turn) == queue


def test_least_served_session_admitted_first() -> None:
    cache = served({"a": 5.0, "b": 0.5, "c": 1.5})  # queues 3, 0, 1
    waiting = return_all(cache, "abc")
    assert requests(cache.admit(waiting).admitted) == ["b2", "c2", "a2"]


def test_sessions_of_one_queue_go_by_arrival() -> None:
    cache = served({"a": 3.9, "b": 2.1})  # both in queue 2
    waiting = return_all(cache, "ab")
    assert requests(cache.admit(waiting).admitted) == ["a2", "b2"]


def test_service_adds_up_over_a_sessions_turns() -> None:
    cache = Cache("autellix", 100)
    for number in range(1, 4):
        cache.run(f"a{number}", hashes_of("aaa"[:number]), served_s=0.75)
    turn = cache.arrive("a4", hashes_of("aaaa"))
    assert queue_of(cache, turn) == 2  # 3 * 0.75 = 2.25, and 2 <= 2.25 < 4


def test_new_session_starts_in_the_first_queue() -> None:
    cache = served({"a": 1.5})
    old, new = return_all(cache, "a")[0], cache.arrive("new", hashes_of("n"))
    assert requests(cache.admit([old, new]).admitted) == ["new", "a2"]


def test_turn_promoted_once_it_waited_four_times_its_service() -> None:
    cache = served({"a": 2.0})
    (turn,) = return_all(cache, "a")
    arrived_s = cache.now_s
    cache.at(arrived_s + 7.5)  # 7.5 / 2 = 3.75 < 4
    assert queue_of(cache, turn) == 2
    cache.at(arrived_s + 8.0)  # 8 / 2 = 4
    assert queue_of(cache, turn) == 0


def test_waits_of_earlier_turns_count_for_promotion() -> None:
    cache = Cache("autellix", 100)
    for number, waited_s in ((1, 2.0), (2, 1.0)):
        turn = cache.arrive(f"a{number}", hashes_of("a" * number))
        cache.at(cache.now_s + waited_s)
        cache.start(turn)
        cache.at(cache.now_s + 1.0)
        cache.end(turn)
    third = cache.arrive("a3", hashes_of("aaa"))  # W = 2 + 1, T = 1 + 1, at 5 s
    cache.at(9.5)  # (3 + 4.5) / 2 = 3.75
    assert queue_of(cache, third) == 2
    cache.at(10.0)  # (3 + 5) / 2 = 4
    assert queue_of(cache, third) == 0


def test_wait_that_led_to_a_promotion_counts_no_more() -> None:
    cache = served({"a": 2.0})
    (turn,) = return_all(cache, "a")
    cache.at(cache.now_s + 9.0)  # 9 / 2 > 4: promoted
    cache.start(turn)
    cache.end(turn)
    (turn,) = return_all(cache, "a")
    cache.at(cache.now_s + 7.5)  # 7.5 / 2, not 16.5 / 2
    assert queue_of(cache, turn) == 2


def test_queues_and_promotion_are_settings() -> None:
    name = "autellix:num_queues=3:first_queue_s=10:queue_factor=3:starvation_ratio=2"
    cache = Cache(name, 100)
    for session, served_s in (("a", 9.0), ("b", 29.0), ("c", 31.0)):
        cache.run(session, hashes_of(session), served_s=served_s)
    turns = return_all(cache, "abc")
    assert [queue_of(cache, turn) for turn in turns] == [0, 1, 2]
    cache.at(cache.now_s + 58.0)  # 58 / 29
    assert [queue_of(cache, turn) for turn in turns] == [0, 0, 2]


def test_promoted_turn_passes_a_less_served_one() -> None:
    cache = served({"a": 4.0, "b": 1.5})  # queues 3 and 1
    (starved,) = return_all(cache, "a")
    cache.at(cache.now_s + 16.0)  # 16 / 4 = 4
    (late,) = return_all(cache, "b")
    assert requests(cache.admit([late, starved]).admitted) == ["a2", "b2"]


def test_aborted_turn_adds_no_service() -> None:
    cache = served({"a": 0.75})
    (turn,) = return_all(cache, "a")
    cache.at(cache.now_s + 1.0)
    cache.runtime.turn_ended(turn, [], None)
    again = cache.arrive("a3", hashes_of("a2"))
    assert again.session is turn.session
    assert queue_of(cache, again) == 0


def test_explicit_priority_comes_before_queues() -> None:
    cache = served({"a": 5.0, "b": 0.5})
    urgent, other = return_all(cache, "ab")
    urgent.priority = -1
    assert requests(cache.admit([other, urgent]).admitted) == ["a2", "b2"]


def test_forgotten_session_leaves_no_service() -> None:
    cache = served({"a": 5.0})
    cache.runtime.sessions.max_sessions = 0
    cache.run("b", hashes_of("b"))
    admission = cache.runtime.policies.admission
    assert isinstance(admission, Autellix)
    assert not admission._served_s and not admission._waited_s


def test_preempted_turn_counts_both_services_and_both_waits() -> None:
    """Waits 1 s, runs 4 s, is preempted, waits 1 s, runs 2 s: waited 2 s, served 6 s."""
    cache = Cache("autellix", 100)
    turn = cache.arrive("a", hashes_of("a"))
    runtime = cache.runtime
    for time_s, happens in (
        (1.0, runtime.turn_started),
        (5.0, runtime.turn_preempted),
        (6.0, runtime.turn_started),
    ):
        runtime.tick(time_s)
        happens(turn)
    runtime.tick(8.0)
    runtime.turn_ended(turn, hashes_of("a"), None)
    admission = runtime.policies.admission
    assert isinstance(admission, Autellix)
    assert admission._waited_s[turn.session] == 2.0
    assert admission._served_s[turn.session] == 6.0
    assert not admission._started_s and not admission._waits_since_s
