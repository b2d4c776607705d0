"""Return times, learned from gaps."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.predict.features import GapFeatures
from holdfast.predict.return_time import ReturnTimeModel

HUMAN = GapFeatures("human")
READ = GapFeatures("read", "Read")
SHELL = GapFeatures("shell", "Bash")
GIT = GapFeatures("shell", "Bash", "git status")
TESTS = GapFeatures("shell", "Bash", "pytest")
ALL = [HUMAN, READ, SHELL, GIT, TESTS, GapFeatures("sub_agent", "Task"), GapFeatures()]

GAPS = st.lists(st.tuples(st.sampled_from(ALL), st.floats(0.0, 1e5), st.booleans()), max_size=40)


def learned(observations: list[tuple[GapFeatures, float, bool]]) -> ReturnTimeModel:
    model = ReturnTimeModel()
    for features, gap_s, censored in observations:
        model.observe(features, gap_s, censored=censored)
    return model


def lognormal(model: ReturnTimeModel, features: GapFeatures, median_s: float, n: int) -> None:
    rng = random.Random(7)
    for _ in range(n):
        model.observe(features, median_s * math.exp(rng.gauss(0.0, 0.5)))


def test_expectation_scales_with_wait_and_scale_at_first() -> None:
    model = ReturnTimeModel()
    base_s = model.expected_residual_s(SHELL, 1.0, scale_s=2.0)
    assert base_s > 0.0
    assert model.expected_residual_s(SHELL, 2.0, scale_s=1.0) == pytest.approx(base_s)
    assert model.expected_residual_s(SHELL, 10.0, scale_s=20.0) == pytest.approx(10 * base_s)


def test_human_expected_slower_than_a_tool_at_first() -> None:
    model = ReturnTimeModel()
    assert model.expected_residual_s(HUMAN, 0.0, scale_s=1.0) > model.expected_residual_s(
        READ, 0.0, scale_s=1.0
    )


def test_return_is_even_odds_without_gaps_and_scale() -> None:
    stays = ReturnTimeModel().survival(SHELL, 0.0, 5.0)
    assert stays == pytest.approx(0.99 * 0.5 + 0.01)


def test_constant_gap_is_learned() -> None:
    model = learned([(GIT, 3.0, False)] * 200)
    assert model.residual_quantile_s(GIT, 0.0, 0.5) == pytest.approx(3.0, rel=0.2)
    assert model.expected_residual_s(GIT, 0.0) == pytest.approx(3.0, rel=0.2)
    assert model.survival(GIT, 0.0, 2.0) > 0.95
    assert model.survival(GIT, 0.0, 4.0) < 0.06


def test_overdue_session_is_expected_ever_later() -> None:
    model = learned([(GIT, 3.0, False)] * 50)
    residuals = [model.expected_residual_s(GIT, elapsed_s) for elapsed_s in (5.0, 50.0, 500.0)]
    assert residuals == sorted(residuals)
    assert 50.0 < residuals[1] < math.inf


def test_unobserved_kind_follows_its_ratio_to_others() -> None:
    # Shell gaps of 2 s: a human's are assumed 64 times as long.
    model = learned([(SHELL, 2.0, False)] * 500)
    median_s = model.residual_quantile_s(HUMAN, 0.0, 0.5)
    assert median_s == pytest.approx(128.0, rel=0.25)


def test_argument_class_departs_from_its_tool() -> None:
    model = ReturnTimeModel()
    lognormal(model, GIT, 0.5, 300)
    lognormal(model, TESTS, 60.0, 300)
    medians = [model.residual_quantile_s(f, 0.0, 0.5) for f in (GIT, TESTS)]
    assert medians == pytest.approx([0.5, 60.0], rel=0.25)
    unseen = GapFeatures("shell", "Bash", "never seen")
    assert medians[0] < model.residual_quantile_s(unseen, 0.0, 0.5) < medians[1]


def test_recent_gaps_outweigh_old_ones() -> None:
    model = ReturnTimeModel(half_life_observations=50.0)
    lognormal(model, GIT, 1.0, 1000)
    lognormal(model, GIT, 30.0, 300)
    assert model.residual_quantile_s(GIT, 0.0, 0.5) == pytest.approx(30.0, rel=0.3)


def test_single_huge_gap_hardly_moves_the_expectation() -> None:
    model = learned([(GIT, 1.0, False)] * 300 + [(GIT, 1e6, False)])
    assert model.expected_residual_s(GIT, 0.0) < 5.0


def test_limit_bounds_the_expectation() -> None:
    model = learned([(HUMAN, 100.0, False)] * 50)
    assert model.expected_residual_s(HUMAN, 0.0, limit_s=10.0) == pytest.approx(10.0, rel=0.1)


def test_sessions_without_a_return_lower_its_probability() -> None:
    model = learned([(HUMAN, 100.0, False)] * 60 + [(HUMAN, 0.0, True)] * 40)
    # 60 of 100, leaning on 85 % with the weight of 16 observations.
    assert model.return_probability(HUMAN, 0.0) == pytest.approx((60 + 16 * 0.85) / 116, rel=0.01)
    assert model.survival(HUMAN, 0.0, 1e9) == pytest.approx(1 - 73.6 / 116, abs=0.02)


def test_return_probability_falls_with_time_away() -> None:
    model = learned([(HUMAN, 100.0, False)] * 60 + [(HUMAN, 0.0, True)] * 40)
    chances = [model.return_probability(HUMAN, elapsed_s) for elapsed_s in (0, 90, 150, 5000)]
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < 0.2


@pytest.mark.parametrize("gap_s", [math.nan, math.inf, -1.0])
def test_invalid_gap_is_ignored(gap_s: float) -> None:
    model = learned([(GIT, gap_s, False)])
    assert model.num_observed == 0.0


@settings(deadline=None)
@given(GAPS, st.sampled_from(ALL), st.floats(0.0, 1e6), st.lists(st.floats(0.0, 1e6), min_size=2))
def test_survival_is_a_probability_falling_with_the_horizon(
    gaps: list[tuple[GapFeatures, float, bool]],
    features: GapFeatures,
    elapsed_s: float,
    horizons_s: list[float],
) -> None:
    model = learned(gaps)
    stays = [model.survival(features, elapsed_s, h, scale_s=1.0) for h in sorted(horizons_s)]
    assert all(0.0 <= s <= 1.0 for s in stays)
    assert all(later <= sooner + 1e-12 for sooner, later in pairwise(stays))


@settings(deadline=None)
@given(GAPS, st.sampled_from(ALL), st.floats(0.0, 1e9), st.floats(0.0, 1e3))
def test_expectations_are_finite_and_not_negative(
    gaps: list[tuple[GapFeatures, float, bool]],
    features: GapFeatures,
    elapsed_s: float,
    scale_s: float,
) -> None:
    model = learned(gaps)
    expected_s = model.expected_residual_s(features, elapsed_s, scale_s=scale_s)
    assert 0.0 <= expected_s < math.inf
    assert 0.0 <= model.return_probability(features, elapsed_s) <= 1.0


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(ALL), st.floats(0.01, 1e4)), max_size=30),
    st.sampled_from(ALL),
    st.floats(0.0, 1e3),
    st.integers(-16, 16),
)
def test_predictions_scale_with_time(
    gaps: list[tuple[GapFeatures, float]],
    features: GapFeatures,
    elapsed_s: float,
    octaves: int,
) -> None:
    factor = 2.0 ** (octaves / 2)
    slow, fast = ReturnTimeModel(), ReturnTimeModel()
    for seen, gap_s in gaps:
        # The middle of a bin stays in the middle of a bin.
        gap_s = 2.0 ** (math.floor(math.log2(gap_s) * 4) / 4 + 1 / 8)
        fast.observe(seen, gap_s)
        slow.observe(seen, gap_s * factor)
    expected_s = fast.expected_residual_s(features, elapsed_s, scale_s=0.5)
    scaled_s = slow.expected_residual_s(features, elapsed_s * factor, scale_s=0.5 * factor)
    assert scaled_s == pytest.approx(expected_s * factor, rel=1e-3, abs=1e-6)
    stays = fast.survival(features, elapsed_s, 3.0, scale_s=0.5)
    scaled_stays = slow.survival(features, elapsed_s * factor, 3.0 * factor, scale_s=0.5 * factor)
    assert scaled_stays == pytest.approx(stays, rel=1e-3, abs=1e-6)


def test_saved_model_predicts_the_same() -> None:
    model = ReturnTimeModel()
    for features, median_s in ((HUMAN, 100.0), (GIT, 0.5), (TESTS, 60.0), (READ, 0.1)):
        lognormal(model, features, median_s, 40)
    model.observe(HUMAN, 5.0, censored=True)
    again = ReturnTimeModel.from_bytes(model.to_bytes())
    for features in ALL:
        assert again.expected_residual_s(features, 1.0) == pytest.approx(
            model.expected_residual_s(features, 1.0), rel=0.05
        )
        assert again.return_probability(features, 1.0) == pytest.approx(
            model.return_probability(features, 1.0)
        )


@pytest.mark.parametrize("data", [b"", b"junk", b"\x81\xa6schema\xa1x"])
def test_damaged_encoding_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ReturnTimeModel.from_bytes(data)


def test_memory_is_bounded_for_any_number_of_tools() -> None:
    model = ReturnTimeModel()
    for i in range(3000):
        features = GapFeatures("shell", f"tool{i % 600}", f"class{i}")
        model.observe(features, 1.0)
        model.expected_residual_s(features, 0.0)
    assert len(model._tools) <= 256
    assert len(model._classes) <= 1024
    assert all((kind, tool) in model._tools for kind, tool, _ in model._classes)
    assert len(model._resolved) <= 4096


def test_tool_in_use_is_not_forgotten_for_new_ones() -> None:
    model = ReturnTimeModel()
    for i in range(1000):
        model.observe(GIT, 0.5)
        model.observe(GapFeatures("other", f"tool{i}"), 50.0)
    assert model.residual_quantile_s(GIT, 0.0, 0.5) == pytest.approx(0.5, rel=0.25)
