"""Sequences of steps: their length, last step and human waits."""

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
from holdfast.workload.generator.parameters import Agent, Dependence, Step
from holdfast.workload.generator.steps import steps_of

PERCENTS = (0.0, 100.0)


def agent_of(steps: dict[str, Any], num_turns: Any = None) -> Agent:
    return Agent(
        num_turns=num_turns,
        roles={},
        steps={name: Step(output_tokens=1.0, tool=name, **step) for name, step in steps.items()},
        first={next(iter(steps)): 1.0},
    )


def draws_of(seed: int, *, ends_full: bool = False) -> Draws:
    sessions = [traits(ends_full=ends_full)]
    dependence = msgspec.convert(independent(sessions=sessions), Dependence)
    return Draws(np.random.default_rng(seed), PERCENTS, dependence)


def tools_of(agent: Agent, seed: int, odds_ratio: float = 1.0, **options: Any) -> list[str]:
    return [step.tool for step in steps_of(agent, draws_of(seed, **options), odds_ratio)]


@given(st.integers(1, 20), st.integers(0, 99))
def test_session_has_given_number_of_turns(num_turns: int, seed: int) -> None:
    agent = agent_of({"work": {"next": {"work": 5.0, "end": 1.0}}}, num_turns)
    assert len(tools_of(agent, seed)) == num_turns


def test_full_context_allows_largest_number_of_turns() -> None:
    agent = agent_of({"work": {"next": {"work": 1.0}}}, (2.0, 30.0))
    assert len(tools_of(agent, 0, ends_full=True)) == 30
    assert len(tools_of(agent, 0)) < 30


def test_last_step_weighted_by_its_chance_to_end() -> None:
    # `ask` ends a session half of the time, `work` a tenth: 5 to 1 among last steps.
    steps = {
        "start": {"next": {"ask": 1.0, "work": 1.0}},
        "ask": {"next": {"start": 1.0, "end": 1.0}},
        "work": {"next": {"start": 9.0, "end": 1.0}},
    }
    agent = agent_of(steps, 2)
    last = Counter(tools_of(agent, seed)[-1] for seed in range(3000))
    assert last["ask"] / last["work"] == pytest.approx(5.0, rel=0.2)


def test_other_steps_weighted_by_their_chance_to_continue() -> None:
    # `ask` continues half of the time, `work` always: 1 to 2 among second of three steps.
    steps = {
        "start": {"next": {"ask": 1.0, "work": 1.0}},
        "ask": {"next": {"start": 1.0, "end": 1.0}},
        "work": {"next": {"start": 1.0}},
    }
    agent = agent_of(steps, 3)
    second = Counter(tools_of(agent, seed)[1] for seed in range(3000))
    assert second["work"] / second["ask"] == pytest.approx(2.0, rel=0.15)


def test_odds_ratio_scales_human_steps() -> None:
    steps = {
        "work": {"next": {"work": 3.0, "ask": 1.0}},
        "ask": {"next": {"work": 3.0, "ask": 1.0}, "ended_by": "human"},
    }
    agent = agent_of(steps, 2)
    for odds_ratio, expected in ((1.0, 0.25), (3.0, 0.5), (0.0, 0.0), (float("inf"), 1.0)):
        second = [tools_of(agent, seed, odds_ratio)[1] for seed in range(1500)]
        assert second.count("ask") / 1500 == pytest.approx(expected, abs=0.04)


def test_session_without_num_turns_ends_at_end() -> None:
    agent = agent_of({"work": {"next": {"end": 1.0}}})
    assert tools_of(agent, 0) == ["work"]
