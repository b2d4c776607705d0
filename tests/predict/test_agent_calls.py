"""Agents' calls to come: order, times, workflows and tenants."""

from __future__ import annotations

import random

import pytest

from holdfast.core.agents import AgentKey
from holdfast.predict.agent_calls import AgentCalls, Workload, agent_number, tenant_number


def run(
    workload: Workload,
    agents: list[int],
    workflow: str = "w",
    now_s: float = 0.0,
    step_s: float = 10.0,
) -> float:
    """Call agents one after another, answered at once; returns when the last was called."""
    for agent in agents:
        now_s += step_s
        workload.called(workflow, agent, now_s)
        workload.answered(workflow, now_s)
    return now_s


def test_nothing_expected_before_order_is_judged() -> None:
    workload = Workload()
    run(workload, [1, 2, 3, 1])
    assert not workload.is_predictable
    assert workload.call_rate(2, 0.0) == 0.0


def test_order_is_used_once_it_repeats() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3, 4, 5, 6, 7, 8, 1])
    assert not workload.is_predictable
    # 2 after 1 is the first call that an earlier one foretold: more than two bits of evidence.
    now_s = run(workload, [2], now_s=now_s)
    assert workload.is_predictable
    assert workload.call_rate(3, now_s) > workload.call_rate(4, now_s) > 0.0


def test_agent_expected_in_its_steps_times_the_interval() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3] * 30)
    # 3 was called last: 1 is one step of 10 s away, 2 two.
    assert workload.call_rate(1, now_s + 2.0) == pytest.approx(1 / 8, rel=0.05)
    assert workload.call_rate(2, now_s + 2.0) == pytest.approx(1 / 18, rel=0.05)


def test_wait_never_below_half_an_interval() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3] * 30)
    assert workload.call_rate(1, now_s + 9.9) == pytest.approx(1 / 5, rel=0.01)


def test_silent_workflow_is_expected_less_and_less() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3] * 30)
    workload.called("w", 3, now_s)
    while_running = workload.call_rate(1, now_s + 100.0)
    workload.answered("w", now_s)
    rates = [workload.call_rate(1, now_s + waited_s) for waited_s in (10.0, 20.0, 40.0, 100.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.001 * while_running


def test_nothing_follows_where_workflows_have_ended() -> None:
    """Three steps and an end, told or not: the end is learned either way."""
    for is_told in (False, True):
        workload = Workload()
        now_s = 0.0
        for number in range(12):
            now_s = run(workload, [1, 2, 3], f"w{number}", now_s)
            if is_told:
                workload.ended(f"w{number}")
            now_s += 1000.0
        now_s = run(workload, [1, 2, 3], "last", now_s)
        assert workload.order.end_probability((2, 3)) > 0.8
        assert workload.call_rate_in("last", 1, now_s) == 0.0
        now_s = run(workload, [1], "next", now_s)
        assert workload.call_rate_in("next", 3, now_s) == pytest.approx(1 / 20, rel=0.2)


def test_ended_workflow_expects_nothing_until_its_next_call() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3] * 10)
    assert workload.call_rate(1, now_s) > 0.0
    workload.ended("w")
    workload.ended("w")
    assert workload.call_rate(1, now_s) == 0.0
    assert workload.call_rate_in("w", 1, now_s) == 0.0
    assert not workload.upcoming(0.1, now_s)
    now_s = run(workload, [1], now_s=now_s)
    assert [call.agent for call in workload.upcoming(0.5, now_s)] == [2, 3]


def test_share_of_repeats_is_that_of_the_agent() -> None:
    workload = Workload()
    run(workload, [1, 1, 2] * 12)
    assert workload.repeat_share("w", 1) == 0.0  # 2 was called last
    assert workload.repeat_share("w", 2) < 0.1
    run(workload, [1])
    assert 0.3 < workload.repeat_share("w", 1) < 0.7


def test_nothing_expected_in_random_order() -> None:
    rng = random.Random(2)
    workload = Workload()
    now_s = 0.0
    for _ in range(400):
        now_s = run(workload, [rng.randrange(1, 7)], now_s=now_s)
        assert not workload.upcoming(0.1, now_s)


def test_interleaved_workflows_are_kept_apart() -> None:
    workload = Workload()
    now_s = 0.0
    for first, second in zip([1, 2, 3] * 12, [4, 5, 6] * 12, strict=True):
        now_s = run(workload, [first], "one", now_s)
        now_s = run(workload, [second], "two", now_s)
    assert [call.agent for call in workload.upcoming(0.5, now_s)[:2]] == [4, 1]


def test_rates_of_workflows_that_share_an_agent_add_up() -> None:
    workload = Workload()
    now_s = run(workload, [1, 2, 3] * 30)
    alone = workload.call_rate(1, now_s)
    run(workload, [3], "other", now_s - 10.0)
    assert workload.call_rate(1, now_s) == pytest.approx(2 * alone, rel=0.01)
    assert workload.call_rate_in("other", 1, now_s) == pytest.approx(alone, rel=0.01)


def test_likely_branches_are_upcoming_soonest_first() -> None:
    workload = Workload()
    rng = random.Random(4)
    calls = [agent for _ in range(60) for agent in (1, rng.choice([2, 2, 3]), 4)]
    now_s = run(workload, [*calls, 1])
    assert [call.agent for call in workload.upcoming(0.2, now_s)] == [2, 4, 3]


def test_repeated_calls_of_an_agent_are_one() -> None:
    one, other = Workload(), Workload()
    run(one, [1, 2, 3] * 10)
    run(other, [1, 1, 2, 3, 3, 3] * 10)
    assert dict(one.order.rows()).keys() == dict(other.order.rows()).keys()
    assert other.is_predictable


def test_scaling_all_times_scales_the_rate() -> None:
    small, large = Workload(), Workload()
    end_s = run(small, [1, 2, 3] * 10)
    run(large, [1, 2, 3] * 10, step_s=1000.0)
    rate = large.call_rate(1, 100 * (end_s + 3.0))
    assert rate == pytest.approx(small.call_rate(1, end_s + 3.0) / 100)


def test_tenants_learn_nothing_from_each_other() -> None:
    calls = AgentCalls()
    run(calls.of("a"), [1, 2, 3] * 20)
    assert calls.of("a").is_predictable
    assert not calls.of("b").is_predictable
    assert not calls.of("b").upcoming(0.0, 0.0)


def test_memory_is_bounded() -> None:
    calls = AgentCalls()
    for number in range(200):
        calls.of(f"t{number}")
    assert len(list(calls)) == 32
    workload = calls.of("t")
    for number in range(2000):
        run(workload, [1, 2, 3, 4], f"w{number}")
    assert len(workload._positions) == 256
    assert all(len(callers) <= 256 for callers in workload._expected.values())


def test_numbers_tell_ids_and_prefixes_apart() -> None:
    keys = [
        AgentKey("t", agent_id="ab"),
        AgentKey("t", fingerprint=b"ab"),
        AgentKey("t", agent_id="\ud800"),
    ]
    assert len({agent_number(key) for key in keys}) == 3
    assert agent_number(AgentKey("u", agent_id="ab")) == agent_number(keys[0])
    assert tenant_number("") != tenant_number("t")
