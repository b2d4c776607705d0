"""The generator, against the percentiles of the real sessions it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from holdfast.errors import ConfigError
from holdfast.traces import claude_code_tables as tables
from holdfast.traces.digest import sessions_digest
from holdfast.traces.record import Session, common_prefix_length
from holdfast.traces.synthetic import BLOCK_SIZE_TOKENS, generate_sessions


@pytest.fixture(scope="module")
def sessions() -> tuple[Session, ...]:
    return generate_sessions(300, seed=7)


def assert_percentiles_match(
    values: Sequence[float], table: Sequence[float], percents: Sequence[int], tolerance: float
) -> None:
    expected = np.interp(percents, tables.PERCENTS, table)
    found = np.percentile(values, percents)
    assert found == pytest.approx(expected, rel=tolerance, abs=2.0)


def test_turns_per_session_match(sessions: Any) -> None:
    lengths = [len(session.turns) for session in sessions]
    assert_percentiles_match(lengths, tables.NUM_TURNS, (10, 25, 50, 75, 90), 0.25)


def test_tool_gaps_match_into_the_tail(sessions: Any) -> None:
    gaps_s = [t.gap_s for s in sessions for t in s.turns[1:] if t.trigger == "tool_result"]
    assert_percentiles_match(gaps_s, tables.TOOL_GAP_S, (25, 50, 75, 90, 99), 0.25)


def test_human_gaps_match_into_the_tail(sessions: Any) -> None:
    gaps_s = [t.gap_s for s in sessions for t in s.turns[1:] if t.trigger == "user"]
    assert_percentiles_match(gaps_s, tables.HUMAN_GAP_S, (50, 75, 90, 95), 0.25)


def test_answers_match(sessions: Any) -> None:
    outputs = [t.output_tokens for s in sessions for t in s.turns if t.trigger == "tool_result"]
    assert_percentiles_match(
        outputs, tables.OUTPUT_AFTER_TOOL_TOKENS, (10, 25, 50, 75, 90, 99), 0.1
    )


def test_prompts_which_follow_from_growth_and_breaks_match(sessions: Any) -> None:
    prompts = [turn.prompt_tokens for session in sessions for turn in session.turns]
    assert_percentiles_match(prompts, tables.PROMPT_TOKENS, (25, 50, 75, 90, 95), 0.25)


def test_the_largest_prompts_of_sessions_match(sessions: Any) -> None:
    peaks = [max(turn.prompt_tokens for turn in session.turns) for session in sessions]
    assert_percentiles_match(peaks, tables.PEAK_PROMPT_TOKENS, (25, 50, 75, 90, 95), 0.25)


def test_runs_of_tool_turns_have_the_recorded_spread(sessions: Any) -> None:
    runs = []
    for session in sessions:
        run = 0
        for turn in session.turns[1:]:
            if turn.trigger == "user":
                runs.append(run)
                run = 0
            else:
                run += 1
        runs.append(run)
    assert np.median(runs) == pytest.approx(2, abs=2)
    assert np.percentile(runs, (75, 90)) == pytest.approx((10, 28), rel=0.5)


def test_about_one_turn_in_ten_breaks_with_its_prefix(sessions: Any) -> None:
    dropped = [
        len(before.block_ids) - common_prefix_length(before.block_ids, after.block_ids)
        for session in sessions
        for before, after in pairwise(session.turns)
    ]
    assert 0.05 < np.mean(np.asarray(dropped) > 16) < 0.13


def test_sessions_share_their_heads_as_unevenly_as_the_recorded_ones(sessions: Any) -> None:
    heads = Counter(session.turns[0].block_ids[:64] for session in sessions)
    (most_common,) = heads.most_common(1)
    assert 0.1 < most_common[1] / len(sessions) < 0.3
    assert len(heads) > 20


def test_sessions_share_nothing_but_heads(sessions: Any) -> None:
    shared = [
        common_prefix_length(before.turns[-1].block_ids, after.turns[-1].block_ids)
        for before, after in pairwise(sessions)
    ]
    assert max(shared) * BLOCK_SIZE_TOKENS <= max(tables.HEAD_TOKENS)


def test_an_id_stands_for_one_prefix_only(sessions: Any) -> None:
    parents: dict[int, int] = {}
    for session in sessions[:60]:
        for turn in session.turns:
            for parent, child in pairwise((-1, *turn.block_ids)):
                assert parents.setdefault(child, parent) == parent


def test_block_ids_cover_exactly_the_full_blocks(sessions: Any) -> None:
    assert all(
        len(turn.block_ids) == turn.prompt_tokens // BLOCK_SIZE_TOKENS
        for session in sessions
        for turn in session.turns
    )


def test_the_seed_decides_everything() -> None:
    assert sessions_digest(generate_sessions(5, 1)) == sessions_digest(generate_sessions(5, 1))
    assert sessions_digest(generate_sessions(5, 1)) != sessions_digest(generate_sessions(5, 2))


def test_asking_for_more_sessions_adds_to_the_same_ones() -> None:
    assert generate_sessions(6, 3)[:4] == generate_sessions(4, 3)


def test_first_turns_have_no_gap() -> None:
    assert all(session.turns[0].gap_s == 0.0 for session in generate_sessions(10, 0))


def test_no_sessions_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        generate_sessions(0, 0)
