"""Inter-arrival times of agents' calls."""

from __future__ import annotations

import math
import random

import pytest

from holdfast.predict.inter_arrival import InterArrivalModel, RecurringAgent


def taught(
    intervals_s: list[float], name: str = "a", model: InterArrivalModel | None = None
) -> RecurringAgent:
    """An agent with calls at these intervals, the last one at their sum."""
    model = model or InterArrivalModel()
    now_s = 0.0
    for interval_s in intervals_s:
        now_s += interval_s
        agent = model.observe_call(name, now_s, 0.0)
    return agent


def test_regular_agent_expected_one_interval_after_last_call() -> None:
    agent = taught([10.0] * 6)
    assert agent.wait_s(60.0) == pytest.approx(10.0)
    assert agent.wait_s(67.0) == pytest.approx(3.0)


def test_agent_called_twice_is_not_expected_yet() -> None:
    assert taught([10.0]).wait_s(10.0) == math.inf


def test_one_interval_suffices_where_others_are_regular() -> None:
    model = InterArrivalModel()
    taught([10.0] * 8, "a", model)
    assert taught([30.0], "b", model).wait_s(30.0) == pytest.approx(30.0)


def test_agent_called_at_random_is_never_expected() -> None:
    rng = random.Random(0)
    intervals_s = [rng.expovariate(0.1) for _ in range(50)]
    assert all(
        taught(intervals_s[:n]).wait_s(sum(intervals_s[:n])) == math.inf for n in range(1, 50)
    )


def test_overdue_agent_is_no_longer_expected() -> None:
    agent = taught([10.0] * 6)
    assert agent.wait_s(74.0) < math.inf
    assert agent.wait_s(76.0) == math.inf


def test_due_agent_expected_within_its_error() -> None:
    assert 0.0 < taught([10.0] * 6).wait_s(71.0) <= 2.0


def test_scaling_all_times_scales_the_wait() -> None:
    intervals_s = [10.0, 11.0, 9.0, 10.0, 10.5]
    small, large = taught(intervals_s), taught([100 * interval_s for interval_s in intervals_s])
    assert large.wait_s(5050.0 + 300.0) == pytest.approx(100 * small.wait_s(50.5 + 3.0))


def test_continued_share_follows_observations() -> None:
    model = InterArrivalModel()
    agent = taught([10.0] * 3, "a", model)
    for _ in range(10):
        model.observe_end(agent, is_continued=False)
    assert agent.statistics.continued_share < 0.05
    model.observe_end(agent, is_continued=True)
    assert agent.statistics.continued_share > 0.25


def test_new_agent_has_continued_share_of_all() -> None:
    model = InterArrivalModel()
    agent = taught([10.0] * 3, "a", model)
    for _ in range(10):
        model.observe_end(agent, is_continued=False)
    assert taught([10.0], "b", model).statistics.continued_share < 0.05


def test_memory_is_bounded() -> None:
    model = InterArrivalModel()
    for number in range(2000):
        model.observe_call(number, float(number), 0.0)
    assert len(list(model)) == 1024
