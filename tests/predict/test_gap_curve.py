"""The distribution of gaps on its grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.predict.gap_curve import BINS, GapCurve, bin_of, heavy_tail, shifted

# Bins are quarter octaves from 2 ** -30 s on; this one is [1 s, 2 ** 0.25 s).
ONE_SECOND = 120


def curve_of(**counts: float) -> GapCurve:
    masses = np.zeros(BINS)
    for name, count in counts.items():
        masses[ONE_SECOND + int(name.removeprefix("b"))] = count
    return GapCurve(masses)


@pytest.mark.parametrize(
    ("gap_s", "expected"),
    [(0.0, 0), (1.0, ONE_SECOND), (1.9, ONE_SECOND + 3), (2.0, ONE_SECOND + 4), (1e300, BINS - 1)],
)
def test_gap_falls_into_its_quarter_octave(gap_s: float, expected: int) -> None:
    assert bin_of(gap_s) == expected


@settings(deadline=None)
@given(st.integers(-100, 100))
def test_edge_belongs_to_the_bin_above_it(quarters: int) -> None:
    assert bin_of(2.0 ** (quarters / 4)) in (ONE_SECOND + quarters, ONE_SECOND + quarters - 1)
    assert bin_of(2.0 ** (quarters / 4) * 1.01) == ONE_SECOND + quarters


def test_survival_is_linear_inside_a_bin() -> None:
    # All gaps between 1 and 2 ** 0.25 = 1.189 s.
    curve = curve_of(b0=1.0)
    middle_s = (1 + 2**0.25) / 2
    assert [curve.survival(t) for t in (0.5, 1.0, 2.0)] == [1.0, 1.0, 0.0]
    assert curve.survival(middle_s) == pytest.approx(0.5)


def test_mean_residual_is_that_of_the_gaps_left() -> None:
    # Half the gaps about 1.09 s, half about 17.5 s: after 2 s only the long ones are left.
    curve = curve_of(b0=1.0, b16=1.0)
    short_s, long_s = (1 + 2**0.25) / 2, 16 * (1 + 2**0.25) / 2
    assert curve.mean_residual_s(0.0, 1000.0) == pytest.approx((short_s + long_s) / 2)
    assert curve.mean_residual_s(2.0, 1000.0) == pytest.approx(long_s - 2.0)


def test_limit_cuts_the_mean_residual() -> None:
    assert curve_of(b16=1.0).mean_residual_s(0.0, 5.0) == pytest.approx(5.0)


def test_quantiles_invert_survival() -> None:
    curve = curve_of(b0=1.0, b16=3.0)
    for quantile in (0.1, 0.3, 0.9):
        at_s = curve.time_at(1.0 - quantile)
        assert 1.0 - curve.survival(at_s) == pytest.approx(quantile)


def test_heavy_tail_has_its_median_and_falls_like_a_power() -> None:
    curve = GapCurve(heavy_tail(ONE_SECOND))
    assert curve.time_at(0.5) == pytest.approx(2 ** (1 / 8), rel=0.1)
    assert curve.survival(2.0**16) / curve.survival(2.0**12) == pytest.approx(
        2 ** (-0.8 * 4), rel=0.01
    )


@settings(deadline=None)
@given(st.integers(-300, 300))
def test_shifting_loses_no_mass(bins: int) -> None:
    masses = heavy_tail(ONE_SECOND)
    if abs(bins) < BINS:
        assert shifted(masses, bins).sum() == pytest.approx(1.0)


def test_shifting_by_four_bins_doubles_the_gaps() -> None:
    masses = heavy_tail(ONE_SECOND)
    once, twice = GapCurve(masses), GapCurve(shifted(masses, 4))
    assert twice.time_at(0.5) == pytest.approx(2 * once.time_at(0.5))
