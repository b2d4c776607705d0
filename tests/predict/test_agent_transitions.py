"""Agent transitions, learned from the order of calls."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from holdfast.predict.agent_transitions import AgentTransitions, Context


def observed(*workflows: Iterable[int]) -> AgentTransitions:
    transitions = AgentTransitions()
    for agents in workflows:
        context: Context = ()
        for agent in agents:
            context = transitions.observe(context, agent)
    return transitions


def test_probability_blends_row_with_shares() -> None:
    transitions = AgentTransitions()
    for agent in (2, 2, 3):
        transitions.observe((1,), agent)
    # Weights fade by 0.9 with each observation: 2 has 1 * 0.9 + 1 = 1.9, then 1.71; 3 has 1.
    # Of the three observations after the first, as likely to be new: 0.5 / (1 + 0.5) = 1/3 and
    # 0.5 / (1.9 + 0.5) = 5/24; one was new. Escape: 0.5 * (1 + 1) / (1 + 1/3 + 5/24) = 24/37 for
    # each of two followers.
    escape = 2 * 24 / 37
    # Shares of calls, with half a call for each agent and for new ones: 2.5 / 4.5 and 1.5 / 4.5.
    found = transitions.probabilities((1,))
    assert found[2] == pytest.approx((1.71 + escape * 2.5 / 4.5) / (2.71 + escape))
    assert found[3] == pytest.approx((1.00 + escape * 1.5 / 4.5) / (2.71 + escape))
    assert sum(found.values()) < 1.0


def test_two_agents_back_tell_where_one_does_not() -> None:
    # After 9 comes 2 where 1 was before, and 4 where 3 was before.
    transitions = observed([1, 9, 2, 3, 9, 4] * 12)
    assert transitions.probabilities((1, 9))[2] > 0.8
    assert transitions.probabilities((3, 9))[4] > 0.8
    assert abs(transitions.probabilities((9,))[2] - 0.5) < 0.1


def test_longer_context_kept_only_where_shorter_is_ambiguous() -> None:
    assert {context for context, _ in observed([1, 2, 3] * 8).rows()} == {(1,), (2,), (3,)}


def test_order_of_a_cycle_is_predictable() -> None:
    assert observed(list(range(1, 11)) * 3).predictability > 0.8


@pytest.mark.parametrize("num_agents", [2, 6, 20])
def test_random_order_has_no_predictability(num_agents: int) -> None:
    rng = random.Random(3)
    transitions = observed([rng.randrange(1, num_agents + 1) for _ in range(800)])
    assert transitions.predictability < 0.1


def test_one_agent_alone_has_no_predictability() -> None:
    assert observed([1] * 30).predictability == 0.0


def test_new_order_is_learned() -> None:
    transitions = observed([1, 2, 3, 4] * 20, [4, 3, 2, 1] * 8)
    found = transitions.probabilities((4,))
    assert max(found, key=lambda agent: found[agent]) == 3


def test_predictability_falls_when_order_changes() -> None:
    rng = random.Random(1)
    transitions = observed([1, 2, 3, 4, 5] * 20, [rng.randrange(1, 6) for _ in range(200)])
    assert transitions.predictability < 0.1


def test_loss_is_the_code_length_before_learning() -> None:
    transitions = observed([1, 2])
    transitions.observe((1,), 2)
    # Agents 1 and 2 have been called once each: without a context (1 + 0.5) / (2 + 0.5 * 3).
    share = 1.5 / 3.5
    alone, blended = transitions.losses
    assert alone.loss_bits == pytest.approx(-math.log2(share))
    # Row 1 has one follower of weight 1, and an escape of 0.5.
    assert blended.loss_bits == pytest.approx(-math.log2((1.0 + 0.5 * share) / 1.5))


def test_memory_is_bounded() -> None:
    rng = random.Random(5)
    transitions = observed([rng.randrange(1, 3000) for _ in range(12_000)])
    assert len(transitions) <= 2048
    assert len(list(transitions.shares())) <= 1024
    assert all(len(row.weights) <= 16 for _, row in transitions.rows())
