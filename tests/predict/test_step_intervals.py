"""Times between steps of workflows, and how long a silence is normal."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.predict.step_intervals import StepIntervals


def learned(*intervals_s: float) -> StepIntervals:
    intervals = StepIntervals()
    for interval_s in intervals_s:
        intervals.observe(interval_s)
    return intervals


def test_half_of_all_intervals_outlast_the_typical_one() -> None:
    intervals = learned(*[2.0] * 30)
    assert intervals.typical_s == pytest.approx(2.0)
    assert intervals.survival(2.0) == pytest.approx(0.5)
    # The spread has fallen to its least, 0.1: shape 2 ln 2 / 0.1 = 13.9, 2 ** -13.9 at twice.
    assert intervals.survival(4.0) == pytest.approx(1.0 / (1.0 + 2.0 ** (20.0 * math.log(2.0))))


def test_survival_is_that_of_drawn_intervals() -> None:
    rng = random.Random(1)
    draw_s = [0.2 + rng.expovariate(2.0) for _ in range(2000)]
    intervals = learned(*draw_s)
    for waited_s in (0.4, 0.8, 1.6):
        share = sum(each > waited_s for each in draw_s) / len(draw_s)
        assert intervals.survival(waited_s) == pytest.approx(share, abs=0.15)


def test_rest_grows_once_an_interval_is_overdue() -> None:
    intervals = learned(*[10.0] * 30)
    assert intervals.rest_s(3.0) == pytest.approx(7.0)
    assert intervals.rest_s(9.0) == pytest.approx(5.0)
    assert intervals.rest_s(1000.0) > 70.0


def test_nothing_known_before_the_first_interval() -> None:
    intervals = learned(0.0, -1.0)
    assert intervals.typical_s == 0.0
    assert intervals.survival(1e9) == 1.0


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8),
    st.floats(0.0, 1e9),
    st.floats(1e-3, 1e3),
)
def test_scaling_all_times_scales_all_answers(
    drawn_s: list[float], waited_s: float, factor: float
) -> None:
    intervals = learned(*drawn_s)
    scaled = learned(*(factor * each for each in drawn_s))
    assert scaled.survival(factor * waited_s) == pytest.approx(intervals.survival(waited_s))
    rest_s = intervals.rest_s(waited_s)
    assert 0.0 <= intervals.survival(waited_s) <= 1.0
    assert scaled.rest_s(factor * waited_s) == pytest.approx(factor * rest_s)
