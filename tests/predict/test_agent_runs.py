"""How long sub-agents run, and which pauses wait for them."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.predict.agent_runs import AgentRuns
from holdfast.predict.features import GapFeatures, GapKind
from holdfast.predict.return_time import ReturnTimeModel

TASK = GapFeatures("sub_agent", "Task")
SPAWN = GapFeatures("sub_agent", "spawn_agent")


def _learned(durations_s: list[float], pause: GapFeatures = TASK) -> AgentRuns:
    runs = AgentRuns(ReturnTimeModel())
    for duration_s in durations_s * 30:
        runs.observe_run(pause, duration_s)
    return runs


def test_rest_of_a_run_shrinks_as_it_goes_on() -> None:
    runs = _learned([100.0])
    new_s, old_s = (runs.rest_s(TASK, (run_s, run_s), 1) for run_s in (0.0, 50.0))
    assert new_s == pytest.approx(100.0, rel=0.2)
    assert old_s == pytest.approx(50.0, rel=0.4)


def test_last_of_many_takes_longer_than_one() -> None:
    runs = _learned([10.0, 20.0, 40.0, 80.0, 160.0])
    one_s, five_s = (runs.rest_s(TASK, (0.0, 0.0), num_runs) for num_runs in (1, 5))
    assert one_s < five_s
    assert one_s == pytest.approx(40.0, rel=0.3)
    assert five_s == pytest.approx(150.0, rel=0.3)


def test_youngest_and_oldest_run_both_count() -> None:
    runs = _learned([100.0])
    assert runs.rest_s(TASK, (90.0, 0.0), 1) == runs.rest_s(TASK, (0.0, 90.0), 1)
    assert runs.rest_s(TASK, (90.0, 0.0), 1) > runs.rest_s(TASK, (90.0, 90.0), 1)


def test_pauses_stand_for_runs_before_the_first() -> None:
    returns = ReturnTimeModel()
    for _ in range(30):
        returns.observe(TASK, 70.0)
    runs = AgentRuns(returns)
    assert runs.rest_s(TASK, (0.0, 0.0), 1) == pytest.approx(70.0, rel=0.2)


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_no_time_is_preferred(factor: float) -> None:
    runs, scaled = _learned([10.0, 30.0]), _learned([10.0 * factor, 30.0 * factor])
    rest_s = runs.rest_s(TASK, (5.0, 2.0), 3)
    assert scaled.rest_s(TASK, (5.0 * factor, 2.0 * factor), 3) == pytest.approx(rest_s * factor)


def test_lag_is_zero_until_one_is_seen() -> None:
    runs = AgentRuns(ReturnTimeModel())
    assert runs.lag_s(TASK) == 0.0
    for _ in range(30):
        runs.observe_join(TASK, 2.0)
    assert runs.lag_s(TASK) == pytest.approx(2.0, rel=0.2)


def test_tool_that_does_not_wait_is_learned_and_unlearned() -> None:
    runs = AgentRuns(ReturnTimeModel())
    assert runs.is_join(SPAWN)
    for _ in range(3):
        runs.observe_early_return(SPAWN)
    assert not runs.is_join(SPAWN) and runs.is_join(TASK)
    for _ in range(3):
        runs.observe_join(SPAWN, 1.0)
    assert runs.is_join(SPAWN)


def test_only_some_kinds_of_tools_call_agents() -> None:
    kinds: list[GapKind] = ["sub_agent", "other", "unknown", "shell", "read", "human"]
    may = [AgentRuns.may_join(GapFeatures(kind)) for kind in kinds]
    assert may == [True, True, True, False, False, False]


@pytest.mark.parametrize("damage", [b"", b"\x00", b"\x80", b"x" * 40])
def test_other_bytes_are_refused_and_change_nothing(damage: bytes) -> None:
    runs = _learned([100.0])
    with pytest.raises((ValueError, msgspec.MsgspecError)):
        runs.restore(damage)
    assert runs.rest_s(TASK, (0.0, 0.0), 1) == pytest.approx(100.0, rel=0.2)


def test_kinds_of_pauses_are_bounded() -> None:
    runs = AgentRuns(ReturnTimeModel())
    for number in range(2000):
        runs.observe_early_return(GapFeatures("other", f"tool {number}"))
    assert len(runs._joins) == 512
