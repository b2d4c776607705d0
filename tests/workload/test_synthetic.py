"""The default generated sessions against percentiles of recorded sessions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from holdfast.errors import ConfigError
from holdfast.traces.digest import sessions_digest
from holdfast.traces.record import Session, common_prefix_length
from holdfast.workload.synthetic import generate_sessions

BLOCK_TOKENS = 64

# Percentiles of WEKA's 298 Claude Code sessions, from the files' `in`, `out` and `think_time`
# without a reader; gaps are grouped by the `stop` of the request before.
PERCENTS = (10, 25, 50, 75, 90)
NUM_TURNS = (6, 14, 49, 84, 136)
FIRST_PROMPT_TOKENS = (12_314, 16_846, 19_497, 40_251, 102_268)
PEAK_PROMPT_TOKENS = (49_040, 86_481, 138_101, 155_234, 168_477)
PROMPT_TOKENS = (34_934, 57_289, 88_814, 119_977, 141_574)
OUTPUT_TOKENS = (108, 141, 217, 408, 851)
TOOL_GAP_S = (0, 0, 1, 7, 92)
HUMAN_GAP_S = (0, 0, 115, 555, 2_436)
TOOL_RUN_TURNS = (0, 0, 2, 10, 28)


@pytest.fixture(scope="module")
def sessions() -> tuple[Session, ...]:
    return generate_sessions(300, seed=7)


def assert_percentiles_match(values: list[float], expected: tuple[float, ...], rel: float) -> None:
    assert np.percentile(values, PERCENTS) == pytest.approx(expected, rel=rel, abs=2.0)


def gaps_s(sessions: tuple[Session, ...], ended_by: str) -> list[float]:
    pairs = [pair for session in sessions for pair in pairwise(session.turns)]
    return [turn.gap_s for before, turn in pairs if before.ended_by == ended_by]


def test_session_and_answer_lengths_match_recordings(sessions: Any) -> None:
    assert_percentiles_match([len(each.turns) for each in sessions], NUM_TURNS, 0.25)
    answers = [turn.output_tokens for each in sessions for turn in each.turns]
    assert_percentiles_match(answers, OUTPUT_TOKENS, 0.1)


def test_gap_percentiles_match_recordings(sessions: Any) -> None:
    assert_percentiles_match(gaps_s(sessions, "tool"), TOOL_GAP_S, 0.25)
    assert_percentiles_match(gaps_s(sessions, "human"), HUMAN_GAP_S, 0.35)


def test_prompt_lengths_match_recordings(sessions: Any) -> None:
    first = [each.turns[0].prompt_tokens for each in sessions]
    assert_percentiles_match(first, FIRST_PROMPT_TOKENS, 0.4)  # Between 70 and 80 % they treble.
    prompts = [turn.prompt_tokens for each in sessions for turn in each.turns]
    assert_percentiles_match(prompts, PROMPT_TOKENS, 0.25)
    peaks = [max(turn.prompt_tokens for turn in each.turns) for each in sessions]
    assert_percentiles_match(peaks, PEAK_PROMPT_TOKENS, 0.25)


def test_tool_turn_sequences_match_recordings(sessions: Any) -> None:
    lengths = []
    for session in sessions:
        starts = [index for index, turn in enumerate(session.turns) if turn.trigger == "user"]
        ends = [*starts[1:], len(session.turns)]
        lengths += [end - start - 1 for start, end in zip(starts, ends, strict=True)]
    assert np.percentile(lengths, PERCENTS) == pytest.approx(TOOL_RUN_TURNS, rel=0.5, abs=4)


def test_about_one_turn_in_ten_drops_its_prefix(sessions: Any) -> None:
    dropped = [
        len(before.block_ids) - common_prefix_length(before.block_ids, after.block_ids)
        for session in sessions
        for before, after in pairwise(session.turns)
    ]
    assert 0.05 < np.mean(np.asarray(dropped) > 16) < 0.13


def test_heads_shared_as_unevenly_as_in_recordings(sessions: Any) -> None:
    heads = Counter(session.turns[0].block_ids[:64] for session in sessions)
    ((_, most),) = heads.most_common(1)
    assert 0.1 < most / len(sessions) < 0.3
    assert len(heads) > 20


def test_sessions_share_only_heads(sessions: Any) -> None:
    for before, after in pairwise(sessions):
        shared = common_prefix_length(before.turns[-1].block_ids, after.turns[-1].block_ids)
        assert shared * BLOCK_TOKENS <= min(s.turns[0].prompt_tokens for s in (before, after))


def test_equal_ids_mean_equal_prefixes(sessions: Any) -> None:
    parents: dict[int, int] = {}
    for session in sessions[:60]:
        for turn in session.turns:
            for parent, child in pairwise((-1, *turn.block_ids)):
                assert parents.setdefault(child, parent) == parent


def test_block_ids_cover_exactly_full_blocks(sessions: Any) -> None:
    assert all(
        len(turn.block_ids) == turn.prompt_tokens // BLOCK_TOKENS
        for session in sessions
        for turn in session.turns
    )


def test_equal_seeds_give_equal_sessions() -> None:
    assert sessions_digest(generate_sessions(5, 1)) == sessions_digest(generate_sessions(5, 1))
    assert sessions_digest(generate_sessions(5, 1)) != sessions_digest(generate_sessions(5, 2))


def test_more_sessions_extend_the_same_ones() -> None:
    assert generate_sessions(6, 3)[:4] == generate_sessions(4, 3)


def test_first_turns_have_no_gap() -> None:
    assert all(session.turns[0].gap_s == 0.0 for session in generate_sessions(10, 0))


def test_zero_sessions_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        generate_sessions(0, 0)
