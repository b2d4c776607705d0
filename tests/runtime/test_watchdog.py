"""The watchdog: thrashing, and engines that stand still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.miss import MISS_REASONS, Attribution, MissReason
from holdfast.runtime.watchdog import Pulse, Watchdog

IDLE = Pulse(0, 0, 5, 100)
LENGTHS = st.dictionaries(st.sampled_from(MISS_REASONS), st.integers(1, 1000))


def turn(cached: int, missed: dict[MissReason, int]) -> Attribution:
    return Attribution(cached + sum(missed.values()), cached, 1_000, missed)


def after(num_turns: int, cached: int, missed: dict[MissReason, int]) -> Watchdog:
    watchdog = Watchdog()
    for _ in range(num_turns):
        watchdog.turn_ended(turn(cached, missed))
    return watchdog


def kinds(watchdog: Watchdog, now_s: float, pulse: Pulse) -> list[str]:
    return [alarm.kind for alarm in watchdog.look(now_s, pulse)]


def test_few_hits_of_many_possible_are_thrashing() -> None:
    watchdog = after(30, 36, {"evicted": 954, "never_seen": 10})
    (alarm,) = watchdog.look(0.0, IDLE)
    assert alarm.kind == "thrashing"
    assert "3.6% of prompt tokens were cached, 99.0% would be" in alarm.message
    assert watchdog.thrash_index == pytest.approx(95.4)


@pytest.mark.parametrize(
    ("num_turns", "cached", "missed"),
    [
        (30, 900, {"never_seen": 100}),
        (30, 0, {"never_seen": 1000}),
        (30, 100, {"mutated": 900}),
        (30, 950, {"evicted": 50}),
        (5, 36, {"evicted": 954}),
    ],
    ids=["growth", "new prompts", "changed prompts", "a few tokens", "too few turns"],
)
def test_what_no_larger_cache_changes_is_no_thrashing(
    num_turns: int, cached: int, missed: dict[MissReason, int]
) -> None:
    assert kinds(after(num_turns, cached, missed), 0.0, IDLE) == []


def test_thrashing_is_reported_once_until_it_has_ended() -> None:
    watchdog = after(30, 36, {"evicted": 954, "never_seen": 10})
    assert kinds(watchdog, 0.0, IDLE) == ["thrashing"]
    assert kinds(watchdog, 1.0, IDLE) == []
    for _ in range(300):
        watchdog.turn_ended(turn(900, {"never_seen": 100}))
    assert kinds(watchdog, 2.0, IDLE) == []
    for _ in range(300):
        watchdog.turn_ended(turn(36, {"evicted": 954, "never_seen": 10}))
    assert kinds(watchdog, 3.0, IDLE) == ["thrashing"]


def test_waiting_turns_without_a_start_are_reported() -> None:
    watchdog = Watchdog()
    stuck = Pulse(3, 0, 5, 100)
    assert kinds(watchdog, 0.0, stuck) == []
    assert kinds(watchdog, 59.0, stuck) == []
    assert kinds(watchdog, 61.0, stuck) == ["no_starts"]
    assert kinds(watchdog, 200.0, stuck) == []
    assert kinds(watchdog, 201.0, stuck._replace(num_started=6)) == []
    assert kinds(watchdog, 262.0, stuck._replace(num_started=6)) == ["no_starts"]


def test_running_turns_without_a_step_are_reported() -> None:
    watchdog = Watchdog()
    hung = Pulse(2, 1, 5, 100)
    assert kinds(watchdog, 0.0, hung) == []
    assert kinds(watchdog, 61.0, hung) == ["no_steps"]


def test_an_idle_engine_is_never_reported() -> None:
    watchdog = Watchdog()
    assert [kinds(watchdog, float(now_s), IDLE) for now_s in range(0, 400, 50)] == [[]] * 8


@given(st.lists(st.tuples(st.integers(0, 1000), LENGTHS), max_size=9))
def test_a_larger_cache_never_hits_less(turns: list[tuple[int, dict[MissReason, int]]]) -> None:
    watchdog = Watchdog()
    for cached, missed in turns:
        watchdog.turn_ended(turn(cached, missed))
    if watchdog.hit_ratio is not None and watchdog.possible_hit_ratio is not None:
        assert 0.0 <= watchdog.hit_ratio <= watchdog.possible_hit_ratio <= 1.0 + 1e-9
