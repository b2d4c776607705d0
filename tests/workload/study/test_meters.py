"""Meters of lengths, waits, mutations, fan-out and tool times, by naive counts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workload.study.naive import (
    BLOCK_TOKENS,
    session_of,
    sessions_like_agents,
    shared_blocks,
)

from holdfast.traces.record import Session, Turn
from holdfast.workload.study.distribution import PERCENTS, distribution_of
from holdfast.workload.study.fan_out import FanOutMeter
from holdfast.workload.study.mutations import MutationMeter, mutation_of
from holdfast.workload.study.shape import ShapeMeter
from holdfast.workload.study.steps import Stepper
from holdfast.workload.study.tool_times import ToolTimeMeter
from holdfast.workload.study.waits import WaitMeter


def blocks(*ranges: tuple[int, int]) -> tuple[int, ...]:
    return tuple(block for start, stop in ranges for block in range(start, stop))


def turn(ids: tuple[int, ...], gap_s: float = 0.0) -> Turn:
    return Turn(gap_s, len(ids) * BLOCK_TOKENS, 1, ids)


def called(session: Session, tool: str | None, command: str | None = None) -> Session:
    turns = tuple(
        replace(each, ended_by="tool", tool_name=tool, tool_command=command)
        for each in session.turns
    )
    return replace(session, turns=turns)


class TestDistribution:
    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
    def test_entries_are_percentiles(self, values: list[float]) -> None:
        found = distribution_of(values)
        assert found.percentiles == pytest.approx(np.percentile(values, PERCENTS))
        assert found.percentiles[0] == min(values)
        assert found.percentiles[-1] == max(values)
        assert found.median == pytest.approx(np.median(values))

    @given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 5)), min_size=1, max_size=9))
    def test_weight_equals_repeated_values(self, weighted: list[tuple[int, int]]) -> None:
        repeated = sorted(value for value, weight in weighted for _ in range(weight))
        if not repeated:
            return
        values, weights = zip(*weighted, strict=True)
        found = distribution_of(values, weights)
        assert found.mean == pytest.approx(np.mean(repeated))
        assert found.at(50) == repeated[(len(repeated) + 1) // 2 - 1]
        assert found.at(100) == repeated[-1]

    def test_empty_distribution_has_no_percentiles(self) -> None:
        nothing = distribution_of([])
        assert (nothing.mean, nothing.median, nothing.percentiles) == (None, None, ())
        with pytest.raises(ValueError, match="without values"):
            nothing.at(50)


class TestMutations:
    def test_kinds_depths_and_costs(self) -> None:
        prompts = [
            blocks((0, 400)),
            blocks((0, 350), (900, 960)),  # the last 50 of 400 blocks replaced: tail
            blocks((0, 100), (1000, 1400)),  # 310 of 410 lost: branch
            blocks((0, 350), (900, 1000)),  # extends the second prompt: return
            blocks((0, 20), (2000, 2080)),  # 100 of 450 blocks: compaction
            blocks((0, 20), (2000, 2200)),  # extends
        ]
        session = Stepper().follow(session_of("a", *map(turn, prompts)))
        found = [mutation_of(session, index) for index in range(1, len(prompts))]
        measured = [
            each and (each.kind, each.depth_tokens, each.lost_tokens, each.recompute_tokens)
            for each in found
        ]
        assert measured == [
            ("tail", 3500, 500, 500),
            ("branch", 1000, 3100, 3100),
            ("return", 1000, 4000, 400),
            ("compaction", 200, 4300, 800),
            None,
        ]

    @given(sessions_like_agents())
    def test_depths_and_costs_equal_naive_search(self, sessions: list[Session]) -> None:
        stepper, meter = Stepper(), MutationMeter()
        lost, recompute = [], []
        for session in sessions:
            meter.add(stepper.follow(session))
            prompts = [turn.block_ids for turn in session.turns]
            for index in range(1, len(prompts)):
                before, ids = prompts[index - 1], prompts[index]
                if (kept := shared_blocks(before, ids)) < len(before):
                    lost.append((len(before) - kept) * BLOCK_TOKENS)
                    best = max(shared_blocks(ids, past) for past in prompts[:index])
                    recompute.append(max(0, min(len(before), len(ids)) - best) * BLOCK_TOKENS)
        found = meter.result()
        assert sum(found.num_by_kind.values()) == len(lost)
        assert found.recompute_tokens == sum(recompute)
        assert found.lost_tokens == distribution_of(lost)
        assert found.recompute_tokens_each == distribution_of(recompute)


class TestShape:
    def test_growth_and_compactions_measured(self) -> None:
        prompts = [blocks((0, 400)), blocks((0, 450)), blocks((0, 20), (500, 580))]
        first, second, third = map(turn, prompts)
        meter = ShapeMeter()
        second = replace(second, trigger="tool_result")
        meter.add(Stepper().follow(session_of("a", first, second, third)))
        shape = meter.result()
        assert {name: each.mean for name, each in shape.growth_tokens.items()} == {
            "tool_result early": 500
        }
        compactions = shape.compactions
        assert (compactions.num_compactions, compactions.num_sessions) == (1, 1)
        assert compactions.before_tokens.mean == 4500
        assert compactions.size_ratio.mean == pytest.approx(1000 / 4500)
        assert compactions.kept_ratio.mean == pytest.approx(200 / 4500)
        assert (compactions.num_turns_by_size, compactions.num_by_size) == ((2,), (1,))
        assert shape.user_turn_share.mean == pytest.approx(2 / 3)
        assert shape.tool_run_turns.percentiles[-1] == 1

    @given(sessions_like_agents())
    def test_lengths_equal_naive_lists(self, sessions: list[Session]) -> None:
        stepper, meter = Stepper(), ShapeMeter()
        for session in sessions:
            meter.add(stepper.follow(session))
        shape = meter.result()
        turns = [turn for session in sessions for turn in session.turns]
        assert shape.prompt_tokens == distribution_of([turn.prompt_tokens for turn in turns])
        assert shape.output_tokens["user"] == distribution_of(
            [each.output_tokens for each in turns]
        )
        peaks = [max(turn.prompt_tokens for turn in each.turns) for each in sessions]
        assert shape.peak_prompt_tokens == distribution_of(peaks)
        assert shape.num_turns_each.mean == np.mean([len(each.turns) for each in sessions])


class TestWaits:
    @given(sessions_like_agents())
    def test_idle_tokens_by_cause_equal_naive_sums(self, sessions: list[Session]) -> None:
        stepper, meter = Stepper(), WaitMeter()
        idle: defaultdict[str, float] = defaultdict(float)
        gaps: list[float] = []
        for session in sessions:
            meter.add(stepper.follow(session))
            for before, after in pairwise(session.turns):
                kinds = {"Bash": "shell", "Read": "read", None: "tool"}
                is_tool = before.ended_by == "tool"
                kind = kinds[before.tool_name] if is_tool else before.ended_by
                idle[kind] += (before.prompt_tokens + before.output_tokens) * after.gap_s
                gaps.append(after.gap_s)
        found = meter.result()
        assert {name: wait.idle_token_s for name, wait in found.by_kind.items()} == pytest.approx(
            dict(idle)
        )
        assert found.all.gap_s == distribution_of(sorted(gaps))
        assert found.all.idle_token_s == pytest.approx(sum(idle.values()))
        if gaps:
            assert found.all.long_share == sum(gap > 60 for gap in gaps) / len(gaps)

    def test_rare_commands_grouped(self) -> None:
        stepper, meter = Stepper(), WaitMeter()
        frequent = session_of("a", *[turn((1,), gap_s=1.0)] * 21)
        rare = session_of("b", turn((1,)), turn((1,), gap_s=100.0))
        meter.add(stepper.follow(called(frequent, "Bash", "git status")))
        meter.add(stepper.follow(called(rare, "Bash", "npm test")))
        waits = meter.result()
        assert {name: wait.num_waits for name, wait in waits.by_name.items()} == {
            "(rare)": 1,
            "Bash git status": 20,
        }
        assert waits.by_name["(rare)"].long_idle_share == 1.0
        assert waits.after == {}
        assert waits.transitions == {
            "start": {"shell": 2},
            "shell": {"shell": 21, "end": 2},
        }

    def test_gaps_split_by_previous_tool(self) -> None:
        turns = [
            replace(turn((1,), gap_s=gap_s), ended_by="tool", tool_name=tool)
            for _ in range(21)
            for tool, gap_s in (("Read", 7.0), ("Bash", 1.0))
        ]
        meter = WaitMeter()
        meter.add(Stepper().follow(session_of("a", *turns)))
        after = meter.result().after
        assert {pair: gaps.median for pair, gaps in after.items()} == {
            "read shell": 7.0,
            "shell read": 1.0,
        }


class TestFanOut:
    def test_sub_agents_counted_by_calling_turn(self) -> None:
        stepper, meter = Stepper(), FanOutMeter()
        family = [
            session_of("main", turn((1,)), turn((1, 2), gap_s=40.0), turn((1, 2, 3), gap_s=1.0)),
            replace(session_of("x", turn((4, 5)), parent="main", at=0), agent="Explore"),
            replace(session_of("y", turn((4,)), parent="main", at=0), agent="Explore"),
            session_of("z", turn((6,)), parent="main", at=2),
        ]
        meter.add(tuple(stepper.follow(session) for session in family))
        meter.add((stepper.follow(session_of("alone", turn((7,)))),))
        found = meter.result()
        assert (found.num_subagents, found.num_by_agent) == (3, {"Explore": 2, "": 1})
        assert found.num_each.mean == 1.5
        assert sorted((found.num_per_call.percentiles[0], found.num_per_call.at(100))) == [1, 2]
        assert (found.parent_gap_s.num_values, found.parent_gap_s.mean) == (1, 40.0)
        assert found.peak_prompt_tokens.at(100) == 20


def test_tool_times_grouped_by_kind_and_command() -> None:
    meter = ToolTimeMeter()
    for _ in range(20):
        meter.add("Bash", "npm test", 3.0)
    meter.add("Bash", "git status", 140.0)
    meter.add("Read", None, 1.0)
    kinds = meter.by_kind()
    assert {name: (time.num_calls, time.total_s) for name, time in kinds.items()} == {
        "shell": (21, 200.0),
        "read": (1, 1.0),
    }
    assert kinds["shell"].long_time_share == pytest.approx(0.7)
    assert list(meter.by_name()) == ["Bash npm test"]
