"""Shares of agents and odds ratios of sessions, with hand-worked numbers."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workload.generator.builders import independent, traits

from holdfast.workload.generator.draws import Draws
from holdfast.workload.generator.odds import (
    AgentShares,
    OddsRatios,
    is_human,
    leaving_shares,
    scaled_chance,
)
from holdfast.workload.generator.parameters import Agent, Dependence, Step

PERCENTS = (0.0, 49.0, 51.0, 100.0)


def dependence_of(**fields: Any) -> Dependence:
    return msgspec.convert(independent(**fields), Dependence)


def agent_of(dependence: Dependence, num_turns: Any = 3) -> Agent:
    step = Step(output_tokens=1.0, next={"work": 1.0})
    return Agent(
        num_turns=num_turns, roles={}, steps={"work": step}, dependence=dependence, first={}
    )


@given(st.floats(0.01, 0.99), st.floats(0.01, 100))
def test_scaled_chance_multiplies_odds(chance: float, factor: float) -> None:
    scaled = scaled_chance(chance, factor)
    assert scaled / (1 - scaled) == pytest.approx(factor * chance / (1 - chance))


@pytest.mark.parametrize(
    ("chance", "factor", "expected"),
    [(0.0, 9.0, 0.0), (1.0, 0.1, 1.0), (0.3, 1.0, 0.3), (0.3, math.inf, 1.0), (0.3, 0.0, 0.0)],
)
def test_scaled_chance_at_limits(chance: float, factor: float, expected: float) -> None:
    assert scaled_chance(chance, factor) == expected


def test_agent_shares_weighted_by_turns() -> None:
    # The long session has 30 turns and a share of 0.1, the short one 10 turns and 0.5.
    dependence = dependence_of(
        sessions=[traits([1, 0, 0, 0, 0]), traits([0, 1, 1, 1, 1])],
        human_share=(0.1, 0.1, 0.5, 0.5),
    )
    shares = AgentShares.of(agent_of(dependence, (10, 10, 30, 30)), dependence, PERCENTS)
    assert shares.human == pytest.approx((30 * 0.1 + 10 * 0.5) / 40)
    assert (shares.rewrite, shares.call) == (0.0, 0.0)


def test_agent_shares_count_empty_sessions_as_one_turn() -> None:
    dependence = dependence_of(call_share=0.25)
    shares = AgentShares.of(agent_of(dependence, 0), dependence, (0.0, 100.0))
    assert shares.call == pytest.approx(0.25)


def test_odds_ratios_compare_session_with_agent() -> None:
    dependence = dependence_of(human_share=0.5, rewrite_share=1.0, call_share=0.2)
    draws = Draws(np.random.default_rng(0), (0.0, 100.0), dependence)
    found = OddsRatios.of(dependence, AgentShares(human=0.2, rewrite=0.5, call=0.0), draws)
    assert found.human == pytest.approx(4.0)
    assert found.rewrite == math.inf
    # An agent that never calls has no odds to compare with.
    assert found.call == 1.0


def test_leaving_shares_are_returns_and_branches() -> None:
    step = Step(
        output_tokens=1.0,
        next={},
        ended_by="human",
        rewrites={"tail": 0.5, "return": 0.2, "branch": 0.1},
    )
    assert leaving_shares(step) == {"return": 0.2, "branch": 0.1}
    assert is_human(step)
