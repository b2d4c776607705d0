"""When beginnings come again."""

from __future__ import annotations

import math
import random

import pytest

from holdfast.predict.inter_arrival import InterArrivalModel, RecurringAgent


def taught(
    gaps_s: list[float], name: str = "a", model: InterArrivalModel | None = None
) -> RecurringAgent:
    """What is known of a beginning that came with these gaps; the last time at their sum."""
    model = model or InterArrivalModel()
    now_s = 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        known = model.came(name, now_s, 0.0)
    return known


def test_what_came_regularly_is_expected_a_gap_after_it_came_last() -> None:
    known = taught([10.0] * 6)
    assert known.wait_s(60.0) == pytest.approx(10.0)
    assert known.wait_s(67.0) == pytest.approx(3.0)


def test_what_came_once_again_is_not_yet_expected() -> None:
    assert taught([10.0]).wait_s(10.0) == math.inf


def test_a_second_gap_is_enough_where_others_have_been_regular() -> None:
    model = InterArrivalModel()
    taught([10.0] * 8, "a", model)
    assert taught([30.0], "b", model).wait_s(30.0) == pytest.approx(30.0)


def test_what_comes_at_random_is_never_expected() -> None:
    rng = random.Random(0)
    gaps_s = [rng.expovariate(0.1) for _ in range(50)]
    assert all(taught(gaps_s[:n]).wait_s(sum(gaps_s[:n])) == math.inf for n in range(1, 50))


def test_what_is_long_overdue_is_not_expected_any_more() -> None:
    known = taught([10.0] * 6)
    assert known.wait_s(74.0) < math.inf
    assert known.wait_s(76.0) == math.inf


def test_what_is_due_is_expected_within_the_error_of_its_gaps() -> None:
    assert 0.0 < taught([10.0] * 6).wait_s(71.0) <= 2.0


def test_scaling_all_times_scales_the_wait() -> None:
    gaps_s = [10.0, 11.0, 9.0, 10.0, 10.5]
    small, large = taught(gaps_s), taught([100 * gap_s for gap_s in gaps_s])
    assert large.wait_s(5050.0 + 300.0) == pytest.approx(100 * small.wait_s(50.5 + 3.0))


def test_the_share_that_is_continued_follows_what_happened() -> None:
    model = InterArrivalModel()
    known = taught([10.0] * 3, "a", model)
    for _ in range(10):
        model.ended(known, is_continued=False)
    assert known.habits.continued_share < 0.05
    model.ended(known, is_continued=True)
    assert known.habits.continued_share > 0.25


def test_what_is_new_is_continued_as_often_as_all_others() -> None:
    model = InterArrivalModel()
    known = taught([10.0] * 3, "a", model)
    for _ in range(10):
        model.ended(known, is_continued=False)
    assert taught([10.0], "b", model).habits.continued_share < 0.05


def test_only_so_many_beginnings_are_remembered() -> None:
    model = InterArrivalModel()
    for number in range(2000):
        model.came(number, float(number), 0.0)
    assert len(list(model)) == 1024
