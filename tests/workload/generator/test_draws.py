"""Random draws: traits, quantities and their correlations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workload.generator.builders import independent, traits

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.parameters import Dependence

UNIFORM = (0.0, 1.0)
PERCENTS = (0.0, 100.0)


def draws_of(seed: int = 0, **dependence: Any) -> Draws:
    found = msgspec.convert(independent(**dependence), Dependence) if dependence else None
    return Draws(np.random.default_rng(seed), PERCENTS, found)


def scores_of(draws: Draws, name: str, num_turns: int) -> list[float]:
    values = []
    for _ in range(num_turns):
        draws.next_turn()
        values.append(draws.quantity(name, UNIFORM))
    return values


def test_trait_constant_over_turns() -> None:
    draws = draws_of()
    before = draws.trait("num_turns", (1.0, 99.0))
    scores_of(draws, "gap_s", 5)
    assert draws.trait("num_turns", (1.0, 99.0)) == before


def test_traits_have_ranks_of_one_session() -> None:
    sessions = [traits([rank, 3 - rank, rank, rank, rank]) for rank in range(4)]
    for seed in range(20):
        draws = draws_of(seed, sessions=sessions)
        share = draws.trait("num_turns", UNIFORM)
        other = draws.trait("first_prompt_tokens", UNIFORM)
        low, high = np.sinh(np.arcsinh(1.0) * np.arange(5) / 4)[[0, 4]]
        assert low <= share <= high
        ranks = [int(4 * np.arcsinh(value) / np.arcsinh(1.0)) for value in (share, other)]
        assert sum(ranks) == 3


def test_ends_full_copied_from_session() -> None:
    sessions = [traits([0] * 5, ends_full=True), traits([1] * 5)]
    found = Counter(draws_of(seed, sessions=sessions).ends_full for seed in range(200))
    assert found[True] == pytest.approx(100, abs=30)


def test_level_shifts_all_quantities_of_a_session() -> None:
    high = scores_of(draws_of(sessions=[traits(levels=[3.0, 0, 0])]), "gap_s", 200)
    low = scores_of(draws_of(sessions=[traits(levels=[-3.0, 0, 0])]), "gap_s", 200)
    assert np.median(high) > 0.95
    assert np.median(low) < 0.05


def test_next_correlation_links_consecutive_turns_only() -> None:
    draws = draws_of(next_correlations=[0.9, 0.0, 0.0])
    gaps, answers = [], []
    for _ in range(4000):
        draws.next_turn()
        gaps.append(draws.quantity("gap_s", UNIFORM))
        answers.append(draws.quantity("output_tokens", UNIFORM))
    assert np.corrcoef(gaps[1:], gaps[:-1])[0, 1] == pytest.approx(0.88, abs=0.04)
    assert np.corrcoef(answers[1:], answers[:-1])[0, 1] == pytest.approx(0.0, abs=0.05)
    assert np.corrcoef(gaps, answers)[0, 1] == pytest.approx(0.0, abs=0.15)


def test_session_share_reduces_variance_within_session() -> None:
    values = scores_of(draws_of(session_shares=[1.0, 0.0, 0.0]), "gap_s", 50)
    assert np.std(values) < 0.01
    assert np.std(scores_of(draws_of(), "gap_s", 50)) > 0.2


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), min_size=1), st.integers(0, 9))
def test_choice_never_draws_weight_zero(weights: dict[str, int], seed: int) -> None:
    if sum(weights.values()) == 0:
        return
    draws = draws_of(seed)
    assert all(weights[draws.choice(weights)] > 0 for _ in range(20))


def test_choice_follows_weights() -> None:
    draws = draws_of()
    found = Counter(draws.choice({"a": 3.0, "b": 1.0}) for _ in range(4000))
    assert found["a"] / found["b"] == pytest.approx(3.0, rel=0.1)


def test_chance_zero_never_and_one_always_happens() -> None:
    draws = draws_of()
    assert not any(draws.happens(0.0) for _ in range(100))
    assert all(draws.happens(1.0) for _ in range(100))
