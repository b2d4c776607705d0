"""Statistics of a reading against naive counts."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from tests.workload.study.naive import (
    BLOCK_TOKENS,
    session_of,
    sessions_like_agents,
    shared_blocks,
)

from holdfast.core.results import Distribution
from holdfast.traces.record import Session, ToolSpan, Turn
from holdfast.workload.statistics import SCHEMA, Statistics, StatisticsDocument


def summary_of(*sessions: Session) -> StatisticsDocument:
    statistics = Statistics()
    for session in sessions:
        statistics.add(session)
    return statistics.summary()


@given(sessions_like_agents())
def test_reuse_ratios_equal_naive_search(sessions: list[Session]) -> None:
    found = summary_of(*sessions)
    own = seen = total = 0
    earlier: list[tuple[int, ...]] = []
    for session in sessions:
        past: list[tuple[int, ...]] = []
        for turn in session.turns:
            own += max((shared_blocks(turn.block_ids, ids) for ids in past), default=0)
            seen += max((shared_blocks(turn.block_ids, ids) for ids in earlier), default=0)
            past.append(turn.block_ids)
            earlier.append(turn.block_ids)
            total += turn.prompt_tokens
    distinct = {block for ids in earlier for block in ids}
    assert found.distinct_tokens == len(distinct) * BLOCK_TOKENS
    assert found.prompt_tokens == total
    if total:
        assert found.session_reuse_ratio == pytest.approx(own * BLOCK_TOKENS / total)
        assert found.reading_reuse_ratio == pytest.approx(seen * BLOCK_TOKENS / total)
    else:
        assert (found.session_reuse_ratio, found.reading_reuse_ratio) == (None, None)


@given(sessions_like_agents())
def test_gaps_grouped_by_previous_answer_equal_naive_lists(sessions: list[Session]) -> None:
    found = summary_of(*sessions)
    gaps: dict[str, list[float]] = {}
    for session in sessions:
        for before, after in pairwise(session.turns):
            gaps.setdefault(before.ended_by, []).append(after.gap_s)
    assert sorted(found.gaps) == sorted(gaps)
    for ended_by, values in gaps.items():
        assert found.gaps[ended_by].num_gaps == len(values)
        assert found.gaps[ended_by].total_s == pytest.approx(sum(values))
        assert found.gaps[ended_by].gap_s == Distribution.from_values(values)


def test_sessions_calls_and_models_counted() -> None:
    tools = (ToolSpan("Bash"), ToolSpan("Read"), ToolSpan("Bash"))
    turn = Turn(0.0, 20, 5, (1, 2), model="m", tools=tools)
    main = session_of("main", turn, replace(turn, model="", tools=()))
    sub = replace(session_of("sub", turn, parent="main", at=0), start_s=3.0)
    found = summary_of(main, sub)
    assert (found.num_sessions, found.num_sub_agents, found.num_arrivals) == (2, 1, 1)
    assert (found.num_turns, found.num_tool_calls, found.output_tokens) == (3, 6, 15)
    assert found.calls_by_tool == {"Bash": 4, "Read": 2}
    assert found.turns_by_model == {"m": 2}


def test_empty_reading_has_no_distributions() -> None:
    found = Statistics().summary(num_skipped=2, unread_files=["a.json"])
    assert (found.num_sessions, found.turns_per_session, found.gaps) == (0, None, {})
    document = json.loads(found.to_json())
    assert (document["schema"], document["num_skipped"]) == (SCHEMA, 2)
    assert document["unread_files"] == ["a.json"]
