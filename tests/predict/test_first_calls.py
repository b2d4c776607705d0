"""When agents are called first, by transitions."""

from __future__ import annotations

import random

import pytest

from holdfast.predict.agent_transitions import AgentTransitions, Context, TransitionRow
from holdfast.predict.first_calls import first_calls


class Known(AgentTransitions):
    """Transitions with these probabilities, by the last agent alone."""

    def __init__(self, rows: dict[int, dict[int, float]]) -> None:
        super().__init__()
        self.table = rows

    def probabilities(self, context: Context) -> dict[int, float]:
        return self.table.get(context[-1], {})


def test_agents_of_a_chain_called_after_their_steps() -> None:
    found = first_calls(Known({1: {2: 1.0}, 2: {3: 1.0}, 3: {1: 1.0}}), (1,), 4)
    assert found[2].within == (1.0, 1.0, 1.0, 1.0)
    assert found[3].within == (0.0, 1.0, 1.0, 1.0)
    assert found[1].within == (0.0, 0.0, 1.0, 1.0)
    assert [found[agent].steps for agent in (2, 3, 1)] == [1.0, 2.0, 3.0]


def test_branch_is_called_with_its_probability() -> None:
    found = first_calls(Known({1: {2: 0.75, 3: 0.25}}), (1,), 3)
    assert found[2].within == (0.75, 0.75, 0.75)
    # A prefix kept for one step is used 0.75 times and waits one step: 4/3 steps a use.
    assert found[2].steps == pytest.approx(4 / 3)
    assert found[3].steps == pytest.approx(4.0)


def test_survival_is_by_any_way() -> None:
    # 1 -> 2 (1/2) or 3 (1/2); 2 -> 4; 3 -> 4 (1/2) or 1 (1/2).
    found = first_calls(Known({1: {2: 0.5, 3: 0.5}, 2: {4: 1.0}, 3: {4: 0.5, 1: 0.5}}), (1,), 4)
    # 4 within two steps: 1/2 * 1 + 1/2 * 1/2 = 3/4; within four: 3/4 + 1/4 * 3/4 = 15/16.
    assert found[4].within == pytest.approx((0.0, 0.75, 0.75, 0.9375))
    # Best kept for two steps: it waits 1 + 1 steps and is used 3/4 times.
    assert found[4].steps == pytest.approx(2 / 0.75)
    # 1 again within two: 1/2 * 1/2.
    assert found[1].within == pytest.approx((0.0, 0.25, 0.25, 0.25))


def test_memoryless_call_waits_the_inverse_of_its_probability() -> None:
    others = dict.fromkeys((1, 2, 3, 4), 0.25)
    found = first_calls(Known(dict.fromkeys(others, others)), (1,), 16)
    # P(within k) = 1 - 0.75^k, and the waits add up to (1 - 0.75^k) / 0.25: four steps for any k.
    assert [round(call.steps, 6) for call in found.values()] == [4.0] * 4


def test_unlikely_agents_left_out() -> None:
    found = first_calls(Known({1: {2: 0.99, 3: 0.01}}), (1,), 4)
    assert set(found) == {2}


def test_unknown_agent_predicts_nothing() -> None:
    assert first_calls(AgentTransitions(), (1,), 4) == {}


def test_agrees_with_walks_of_two_agents_back() -> None:
    """The chain's sums against walks drawn from the same transitions."""
    rng = random.Random(7)
    transitions = AgentTransitions()
    transitions.restore(
        [
            ((1,), {2: 2.0, 3: 2.0}),
            ((2,), {4: 3.0, 1: 1.0}),
            ((3,), {4: 1.0, 1: 1.0}),
            ((4,), {1: 1.0, 2: 3.0}),
            ((2, 4), {1: 4.0}),
            ((3, 4), {2: 4.0, 3: 1.0}),
        ],
        [(agent, 1000.0) for agent in (1, 2, 3, 4)],
        (TransitionRow(), TransitionRow()),
    )
    found = first_calls(transitions, (1,), 5)
    num_walks, num_called = 20_000, dict.fromkeys((1, 2, 3, 4), 0)
    for _ in range(num_walks):
        context: Context = (1,)
        seen = set()
        for _ in range(5):
            following = transitions.probabilities(transitions.known_suffix(context))
            rest = 1.0 - sum(following.values())  # of agents that have not followed: lost
            agent = rng.choices((0, *following), (rest, *following.values()))[0]
            if not agent:
                break
            seen.add(agent)
            context = (*context, agent)[-2:]
        for agent in seen:
            num_called[agent] += 1
    for agent, number in num_called.items():
        assert found[agent].probability == pytest.approx(number / num_walks, abs=0.015)
