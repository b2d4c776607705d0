"""Helpers of the comparison with measured GPUs, and its data."""

from __future__ import annotations

import math

import pytest

from anchor.grafted_trees import JOIN_WIDTHS, SUB_AGENT_TURNS, graft, interleave
from anchor.points import MEASURED, POINTS
from anchor.simulated import Curve, Value, crossing, value_of
from holdfast.sim.agent_trees import AgentTrees
from holdfast.traces.record import Session, Turn


def turn(gap_s: float = 1.0, trigger: str = "tool_result") -> Turn:
    kind = "user" if trigger == "user" else "tool_result"
    return Turn(gap_s, 640, 10, tuple(range(10)), trigger=kind, latency_s=2.0)  # type: ignore[arg-type]


def session(name: str, *turns: Turn) -> Session:
    return Session(name, 64, turns, "made")


SESSIONS = (
    session("calls", turn(0.0, "user"), turn(29.0), turn(30.0), turn(400.0, "user")),
    session("short", turn(0.0, "user"), turn(1.0)),
    session("long", turn(0.0, "user"), *[turn(2.0)] * 9),
)


def test_long_tool_pauses_become_calls() -> None:
    grafted = graft(SESSIONS, seed=1)
    called = [each for each in grafted if each.parent_id is not None]
    assert {(each.parent_id, each.parent_turn, each.join_turn) for each in called} == {
        ("calls", 1, 2)
    }
    assert [each for each in grafted if each.parent_id is None] == list(SESSIONS)
    trees = AgentTrees(grafted)
    assert [join.child for join in trees.joins(0, 2)] == list(range(1, 1 + len(called)))


def test_sub_agents_are_as_wide_and_long_as_agentx_has_them() -> None:
    caller = session("calls", turn(0.0), *[turn(60.0)] * 2000)
    called = [each for each in graft([caller], seed=0) if each.parent_id]
    assert all(len(each.turns) == SUB_AGENT_TURNS for each in called)
    mean_width = sum(w * n for w, n in JOIN_WIDTHS.items()) / sum(JOIN_WIDTHS.values())
    assert len(called) / 2000 == pytest.approx(mean_width, rel=0.1)


def test_interleaved_sub_agents_take_the_place_of_the_pause() -> None:
    interleaved = interleave(SESSIONS, seed=1)
    num_called = sum(len(s.turns) for s in graft(SESSIONS, seed=1) if s.parent_id)
    calls, *others = interleaved
    assert others == list(SESSIONS[1:])
    assert len(calls.turns) == 4 + num_called
    assert calls.turns[2 + num_called].gap_s == 0.0
    assert calls.turns[:2] == SESSIONS[0].turns[:2]


def test_cliff_is_where_hits_cross_a_half() -> None:
    assert crossing([(0.5, 0.9), (1.0, 0.7), (1.4, 0.3)]) == pytest.approx(1.2)
    assert crossing([(0.5, 0.9), (1.0, 0.7)]) is None


def test_curve_interpolates_times_by_their_logarithms() -> None:
    points = [(1.0, 1.0), (1.5, 100.0), (2.1, 100.0)]
    assert Curve(points, is_ratio=False).at(1.25) == pytest.approx(10.0)
    assert Curve(points, is_ratio=True).at(1.25) == pytest.approx(50.5)
    assert Curve(points, is_ratio=True).at(2.2) is None
    assert Curve(points, is_ratio=True).at(2.0) is None  # too far apart


@pytest.mark.parametrize(
    ("name", "simulated", "real", "is_within"),
    [
        ("hit_ratio", 0.94, 0.90, True),
        ("hit_ratio", 0.96, 0.90, False),
        ("hit_ratio", 0.96, 0.60, None),
        ("ttft_p99_s", 75.0, 100.0, True),
        ("ttft_p50_s", 75.0, 100.0, False),
        ("ttft_p90_s", 75.0, 100.0, None),
    ],
)
def test_limits_are_those_that_were_asked_for(
    name: str, simulated: float, real: float, is_within: bool | None
) -> None:
    found = Value(simulated, simulated, simulated)
    assert found.within(name, Value(real, real, real)) is is_within


def test_measured_figures_lie_in_their_ranges() -> None:
    points = [point for step in (8, 13, 20, 24) for point in MEASURED[f"step_{step:02}"]["points"]]
    assert len(points) == 2 + 7 + 21 + 20
    for point in points:
        for figure in point.values():
            value = value_of(figure) if isinstance(figure, int | float | list) else None
            assert value is None or (value.low <= value.middle <= value.high)
            assert value is None or math.isfinite(value.middle)
    tiered = [p for p in points if "gpu_hit_ratio" in p and p.get("host_tokens")]
    for point in tiered:
        hits = [value_of(point[name]) for name in ("gpu_hit_ratio", "tier_hit_ratio", "hit_ratio")]
        gpu, tier, both = (each.middle for each in hits if each is not None)
        assert gpu + tier == pytest.approx(both, abs=0.02)


def test_points_are_distinct_and_have_distinct_files() -> None:
    assert len({point.name for point in POINTS}) == len(POINTS) == len(set(POINTS))
