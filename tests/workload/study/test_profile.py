"""Profiles with hand-worked numbers, and scores against their definitions."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from tests.workload.study.naive import BLOCK_TOKENS, session_of, sessions_like_agents

from holdfast.traces.record import EndedBy, Session, Turn
from holdfast.workload.study.profile import QUANTITIES, TRAITS, Profile
from holdfast.workload.study.profile_meter import ProfilesMeter, shrunk_shares
from holdfast.workload.study.scores import (
    correlations,
    next_correlation,
    normal_scores,
    session_levels,
    session_share,
)
from holdfast.workload.study.shape import SIZE_BIN_TOKENS
from holdfast.workload.study.steps import Stepper


def profiles_of(*families: list[Session]) -> dict[str, Profile]:
    stepper, meter = Stepper(), ProfilesMeter()
    for family in families:
        meter.add(tuple(stepper.follow(session) for session in family))
    return meter.result()


def turn(num_blocks: int, gap_s: float = 0.0, tool: str | None = "Bash", first: int = 0) -> Turn:
    ids = tuple(range(first, first + num_blocks))
    ended_by: EndedBy = "tool" if tool else "human"
    return Turn(gap_s, num_blocks * BLOCK_TOKENS, 7, ids, ended_by=ended_by, tool_name=tool)


class TestScores:
    @given(st.lists(st.integers(-9, 9), min_size=2, max_size=40))
    def test_tied_scores_proportional_to_mean_quantile(self, values: list[int]) -> None:
        ranked = norm.ppf((np.arange(len(values)) + 0.5) / len(values))
        ranks = rankdata(values, method="ordinal")
        kinds = [np.asarray(values) == value for value in values]
        expected = np.array([ranked[ranks[kind] - 1].mean() for kind in kinds])
        found = normal_scores(values)
        assert found.mean() == pytest.approx(0, abs=1e-9)
        if len(set(values)) == 1:
            assert found.tolist() == [0.0] * len(values)
        else:
            assert found / found.std() == pytest.approx(expected / expected.std(), abs=1e-9)

    def test_distinct_values_score_with_variance_one(self) -> None:
        assert normal_scores([5.0, 1.0, 9.0, 700.0]).std() == pytest.approx(1.0)

    def test_ties_keep_correlations(self) -> None:
        rng = np.random.default_rng(3)
        pairs = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], 20_000)
        tied = [normal_scores(np.maximum(each, 0.3)) for each in pairs.T]
        assert correlations(tied, [1.0, 1.0])[0][1] == pytest.approx(0.3, abs=0.04)

    def test_nan_values_have_nan_scores(self) -> None:
        assert np.isnan(normal_scores([1.0, float("nan"), 2.0])).tolist() == [False, True, False]

    def test_session_share_recovered(self) -> None:
        rng = np.random.default_rng(5)
        sessions = np.repeat(np.arange(400), rng.integers(2, 40, 400))
        scores = 0.6 * rng.standard_normal(400)[sessions] + 0.8 * rng.standard_normal(sessions.size)
        assert session_share(scores, sessions) == pytest.approx(0.36, abs=0.05)
        assert session_share(rng.standard_normal(sessions.size), sessions) < 0.01

    def test_levels_have_true_variance(self) -> None:
        rng = np.random.default_rng(6)
        sessions = np.repeat(np.arange(500), rng.integers(2, 30, 500))
        true = 0.5 * rng.standard_normal(500)
        levels = session_levels(true[sessions] + rng.standard_normal(sessions.size), sessions)
        assert levels.std() == pytest.approx(0.5, abs=0.06)
        assert np.corrcoef(levels, true)[0, 1] > 0.75

    def test_levels_of_few_scores_shrink_to_mean(self) -> None:
        sessions = np.repeat(np.arange(4), [50, 50, 1, 1])
        scores = np.concatenate([np.tile([0.5, 1.5], 25), np.tile([-1.5, -0.5], 25), [9.0, np.nan]])
        levels = session_levels(scores, sessions)
        assert levels[0] == pytest.approx(1.0, abs=0.2)
        assert levels[2] < 9.0
        assert levels[3] == pytest.approx(3.0)

    def test_next_correlation_within_sessions_only(self) -> None:
        scores = np.array([1.0, 2.0, 3.0, -9.0, -8.0, -7.0])
        # The four pairs have covariance 25.25.
        found = next_correlation(scores, np.array([0, 0, 0, 1, 1, 1]), 50.5)
        assert found == pytest.approx(0.5)
        assert next_correlation(scores, np.arange(6), 50.5) == 0.0

    def test_correlations_use_complete_rows(self) -> None:
        left = np.array([1.0, 2.0, 3.0, 50.0])
        right = np.array([2.0, 4.0, 6.0, float("nan")])
        found = correlations([left, right], [2.0, 8.0])
        assert np.array(found) == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1]]))


class TestShrunkShares:
    def test_chance_differences_shrink_to_overall_share(self) -> None:
        rng = np.random.default_rng(2)
        num_all = np.full(300, 20.0)
        shares = shrunk_shares(rng.binomial(20, 0.2, 300).astype(float), num_all)
        assert shares.std() < 0.02
        assert shares.mean() == pytest.approx(0.2, abs=0.02)

    def test_true_differences_shrink_less_with_more_waits(self) -> None:
        num_all = np.array([2.0, 200.0, 2.0, 200.0])
        shares = shrunk_shares(np.array([0.0, 20.0, 2.0, 120.0]), num_all)
        assert 0.0 < shares[0] < 140 / 404 < shares[2] < 1.0
        assert abs(shares[1] - 0.1) < shares[0]
        assert abs(shares[3] - 0.6) < 1.0 - shares[2]

    def test_sessions_without_waits_have_overall_share(self) -> None:
        shares = shrunk_shares(np.array([0.0, 3.0, 1.0]), np.array([0.0, 4.0, 4.0]))
        assert shares[0] == 0.5


class TestProfiles:
    def test_steps_have_followers_gaps_and_added_tokens(self) -> None:
        turns = [turn(2), turn(5, 3.0), turn(6, 4.0, tool=None), turn(9, 60.0)]
        (profile,) = profiles_of([session_of("a", *turns)]).values()
        assert profile.first == {"shell": 1}
        shell, human = profile.steps["shell"], profile.steps["human"]
        assert shell.next == {"shell": 1, "human": 1, "end": 1}
        assert (shell.tool, shell.num_turns, human.ended_by) == ("Bash", 3, "human")
        assert shell.gap_s.percentiles[0] == 3.0
        assert shell.gap_s.percentiles[-1] == 4.0
        assert human.added_tokens.median == 3 * BLOCK_TOKENS
        assert profile.human_share.median == pytest.approx(1 / 3)

    def test_tool_has_own_step_from_twenty_turns(self) -> None:
        many = session_of("a", *(turn(1, tool="Read") for _ in range(20)), turn(1, tool="Glob"))
        steps = profiles_of([many])["main"].steps
        assert list(steps) == ["Read", "search"]

    def test_early_turns_measured_apart(self) -> None:
        grown = [turn(size) for size in (1, 11, 21, 31, 41, 42, 43)]
        profile = profiles_of([session_of("a", *grown)])["main"]
        assert set(profile.early_added_tokens.percentiles) == {10.0 * BLOCK_TOKENS}
        assert set(profile.steps["shell"].added_tokens.percentiles) == {1.0 * BLOCK_TOKENS}

    def test_growth_phase_ends_at_compaction_or_session_end(self) -> None:
        per_bin = SIZE_BIN_TOKENS // BLOCK_TOKENS + 1
        ids = count(start=10**6, step=10**6)
        growth = [turn(1), turn(per_bin), turn(2 * per_bin)]
        compacted = [turn(per_bin // 2, first=next(ids)), turn(per_bin + 1, first=10**6)]
        profile = profiles_of([session_of("a", *growth, *compacted)])["main"]
        assert profile.num_growth_phases_by_size == (2, 2, 1)
        assert profile.num_compactions_by_size == (0, 0, 1)

    def test_session_ends_full_at_compaction_size(self) -> None:
        per_bin = SIZE_BIN_TOKENS // BLOCK_TOKENS + 1
        compacted = session_of("a", turn(1), turn(2 * per_bin), turn(4, first=10**6))
        full = session_of("b", turn(1), turn(2 * per_bin + 7))
        profile = profiles_of([compacted], [full])["main"]
        assert [each.ends_full for each in profile.sessions] == [False, True]
        assert profile.num_growth_phases_by_size == (2, 1, 1)
        assert profile.full_tokens.median == (2 * per_bin + 7) * BLOCK_TOKENS

    def test_session_traits_are_ranks(self) -> None:
        lengths = (3, 1, 2)
        found = [session_of(str(num), *[turn(5 - num)] * num) for num in lengths]
        sessions = profiles_of(*([each] for each in found))["main"].sessions
        assert [each.num_turns for each in sessions] == [2, 0, 1]
        assert [each.first_prompt_tokens for each in sessions] == [0, 2, 1]

    def test_at_most_thousand_sessions_kept_evenly(self) -> None:
        found = [session_of(str(num), *[turn(1)] * (1 + num % 3)) for num in range(1500)]
        profile = profiles_of(*([each] for each in found))["main"]
        assert profile.num_sessions == 1500
        assert sorted(each.num_turns for each in profile.sessions) == list(range(1000))

    def test_returns_count_turns_since_extended_prompt(self) -> None:
        side = 10**6
        turns = [turn(400), turn(200, first=side), turn(210, first=side), turn(420)]
        turns.append(turn(215, first=side))
        profile = profiles_of([session_of("a", *turns)])["main"]
        turns_back = profile.rewrites["return"].turns_back
        assert (turns_back.percentiles[0], turns_back.percentiles[-1]) == (2.0, 3.0)

    def test_sub_agents_profiled_apart_and_counted_by_call(self) -> None:
        main = session_of("a", turn(2), turn(3), turn(4))
        called = [
            session_of(name, turn(1, first=10**6), parent="a", at=at)
            for name, at in (("b", 1), ("c", 1), ("d", 2))
        ]
        found = profiles_of([main, *called])
        assert sorted(found) == ["main", "sub_agent"]
        assert found["sub_agent"].num_sessions == 3
        assert found["main"].call_share.median == pytest.approx(2 / 3)
        num_called = found["main"].steps["shell"].num_called
        assert (num_called.num_values, num_called.percentiles[-1]) == (2, 2.0)

    @given(sessions_like_agents())
    def test_profile_counts_add_up(self, sessions: list[Session]) -> None:
        profile = profiles_of(*([session] for session in sessions))["main"]
        num_turns = sum(len(session.turns) for session in sessions)
        assert sum(step.num_turns for step in profile.steps.values()) == num_turns
        assert sum(step.next.get("end", 0) for step in profile.steps.values()) == len(sessions)
        assert sum(profile.first.values()) == len(sessions)
        num_full = sum(each.ends_full for each in profile.sessions)
        num_growth_phases = len(sessions) + sum(profile.num_compactions_by_size) - num_full
        assert profile.num_growth_phases_by_size[0] == num_growth_phases
        assert profile.full_tokens.num_values == num_full
        for name in TRAITS:
            ranks = sorted(getattr(each, name) for each in profile.sessions)
            assert ranks == list(range(len(sessions)))
        for numbers in (profile.session_shares, profile.next_correlations):
            assert len(numbers) == len(QUANTITIES)
            assert np.isfinite(numbers).all()
