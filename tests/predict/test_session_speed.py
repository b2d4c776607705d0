"""The session speed factor: predictions from a session's own gaps."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.session_speed import SpeedFactor

SHARES = st.floats(1e-5, 1.0)
HISTORIES = st.lists(st.floats(0.0, 1.0), max_size=40)
GIT = GapFeatures("shell", "Bash", "git status")


def _speed(history: list[float]) -> SpeedFactor:
    speed = SpeedFactor()
    for kind_survival in history:
        speed.add(kind_survival)
    return speed


@given(SHARES)
def test_session_without_gaps_is_as_its_kind(share: float) -> None:
    assert SpeedFactor().survival(share) == pytest.approx(share)
    assert SpeedFactor().kind_survival(share) == pytest.approx(share)


@given(HISTORIES, SHARES)
def test_kind_survival_inverts_survival(history: list[float], share: float) -> None:
    speed = _speed(history)
    assert speed.kind_survival(speed.survival(share)) == pytest.approx(share, rel=1e-6)


@given(HISTORIES, SHARES, SHARES)
def test_longer_gaps_stay_less_likely(history: list[float], one: float, other: float) -> None:
    speed = _speed(history)
    low, high = sorted((one, other))
    assert 0.0 <= speed.survival(low) <= speed.survival(high) <= 1.0


@given(HISTORIES, st.floats(0.05, 0.95))
def test_longer_gap_makes_the_next_one_longer(history: list[float], share: float) -> None:
    slow, quick = _speed([*history, 0.01]), _speed([*history, 0.99])
    assert slow.survival(share) > quick.survival(share)


def test_survival_worked_by_hand() -> None:
    # A gap that half of its kind outlast has the hazard h = 8 (0.5 ** (-1/8) - 1) = 0.7241.
    # With one such gap seen: ((8 + h) / (8 + 2 h)) ** 9 = (8.7241 / 9.4481) ** 9 = 0.4880.
    assert _speed([0.5]).survival(0.5) == pytest.approx(0.4880, abs=1e-4)


def test_predictions_stay_calibrated_over_all_sessions() -> None:
    """As many gaps exceed each predicted quantile as should, over many speeds."""
    rng = Random(5)
    num_beyond = dict.fromkeys((0.5, 0.9, 0.95), 0)
    num_gaps = 0
    for _ in range(400):
        factor = rng.gammavariate(8.0, 1.0 / 8.0)
        speed = SpeedFactor()
        for _ in range(20):
            # Its share of longer gaps among gaps of its kind, under that factor.
            hazard = rng.expovariate(factor)
            share = (1.0 + hazard / 8.0) ** -8.0
            num_gaps += 1
            for level in num_beyond:
                num_beyond[level] += speed.survival(share) < 1.0 - level
            speed.add(share)
    for level, beyond in num_beyond.items():
        assert beyond / num_gaps == pytest.approx(1.0 - level, abs=0.02)


def test_old_gaps_fade() -> None:
    speed = _speed([0.001] * 20 + [0.9] * 60)
    assert speed.survival(0.5) == pytest.approx(_speed([0.9] * 80).survival(0.5), abs=0.01)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_extreme_gaps_do_no_harm(share: float) -> None:
    speed = _speed([share] * 50)
    assert speed.survival(share) == pytest.approx(share)
    assert 0.0 < speed.survival(0.5) < 1.0


def test_model_learns_a_slow_session_from_its_gaps() -> None:
    model = ReturnTimeModel()
    rng = Random(2)
    for _ in range(300):
        model.observe(GIT, rng.lognormvariate(1.0, 1.0))
    slow = SpeedFactor()
    for _ in range(6):
        model.observe(GIT, 40.0, speed=slow)
    usual_s = model.residual_quantile_s(GIT, 0.0, 0.5)
    assert model.residual_quantile_s(GIT, 0.0, 0.5, speed=slow) > 1.5 * usual_s
    assert model.residual_quantile_s(GIT, 0.0, 0.5, speed=SpeedFactor()) == pytest.approx(usual_s)
    later_s = model.residual_quantile_s(GIT, 30.0, 0.5, speed=slow)
    assert later_s > model.residual_quantile_s(GIT, 30.0, 0.5)
    assert model.return_probability(GIT, 30.0, speed=slow) >= model.return_probability(GIT, 30.0)
