"""Counted transitions, with hand-worked numbers; epsilon is 0.01."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from holdfast.predict.transition_counts import TransitionCounts


def counted(calls: str) -> TransitionCounts[str]:
    counts: TransitionCounts[str] = TransitionCounts(0.01)
    counts.enter(calls[0])
    for before, agent in pairwise(calls):
        counts.observe(before, agent)
    return counts


def test_probability_is_the_smoothed_share() -> None:
    counts = counted("ABABAC")
    # A: twice to B, once to C; three agents.
    assert counts.probability("A", "B") == pytest.approx(2.01 / 3.03)
    assert counts.probability("A", "A") == pytest.approx(0.01 / 3.03)
    assert counts.likeliest_after("A") == "B"
    assert counts.likeliest_after("C") is None


def test_cycle_is_fully_predictable() -> None:
    assert counted("ABCABCA").predictability == pytest.approx(1.0)


def test_predictability_by_hand() -> None:
    # A -> B, B -> A, A -> C, C -> A: next is A twice, B and C once: H = 1.5 bits.
    # From A (twice) B or C: 1 bit; from B and C only A. H(next | current) = 2/4 * 1 = 0.5.
    assert counted("ABACA").predictability == pytest.approx(1.0 - 0.5 / 1.5)


def test_one_agent_is_not_predictable() -> None:
    assert counted("A").predictability == 0.0


def test_hops_from_several_current_agents() -> None:
    counts = counted("ABCDEF")
    assert counts.hops(["A"], 0.1) == {"A": 0, "B": 1, "C": 2, "D": 3, "E": 4, "F": 5}
    assert counts.hops(["A", "D"], 0.1) == {"A": 0, "D": 0, "B": 1, "E": 1, "C": 2, "F": 2}


def test_survival_by_hand() -> None:
    counts: TransitionCounts[str] = TransitionCounts(0.01)
    for before, agent in ("AB", "AC", "BD", "CA", "CD"):
        counts.observe(before, agent)
    # D within two steps of A: 1/2 * 1 + 1/2 * 1/2. A itself: 1/2 * 1/2.
    assert counts.survival("A", 2) == pytest.approx({"B": 0.5, "C": 0.5, "D": 0.75, "A": 0.25})
    # Within three: A has come back with 1/4, from where B and C have 1/2 each.
    assert counts.survival("A", 3)["B"] == pytest.approx(0.5 + 0.25 * 0.5)


def test_survival_agrees_with_walks() -> None:
    rng = random.Random(3)
    counts = counted("".join(rng.choice("ABCD") for _ in range(60)))
    found, num_walks = counts.survival("A", 4), 8000
    called = dict.fromkeys("ABCD", 0)
    for _ in range(num_walks):
        agent, seen = "A", set()
        for _ in range(4):
            row = counts._rows[agent]
            agent = rng.choices(list(row), list(row.values()))[0]
            seen.add(agent)
        for each in seen:
            called[each] += 1
    for agent, number in called.items():
        assert found[agent] == pytest.approx(number / num_walks, abs=0.02)


def test_memory_is_bounded() -> None:
    counts: TransitionCounts[int] = TransitionCounts(0.01)
    for number in range(3000):
        counts.observe(number, number + 1)
    assert len(counts) <= 1025
