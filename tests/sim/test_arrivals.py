"""When turns are sent: agent trees, starts in mid-session, warm-up turns, windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.window import Window
from holdfast.errors import ConfigError
from holdfast.sim.agent_trees import AgentTrees
from holdfast.sim.arrivals import Arrivals
from holdfast.sim.load import SimulationOptions
from holdfast.sim.replays import Replays
from holdfast.traces.record import Session, ToolSpan, Turn

BLOCK = 4


def session(name: str, *gaps_s: float, latency_s: float | None = None, **fields: Any) -> Session:
    turns = tuple(
        Turn(gap_s, BLOCK * (index + 1), 1, tuple(range(index + 1)), latency_s=latency_s)
        for index, gap_s in enumerate(gaps_s)
    )
    return Session(name, BLOCK, turns, "test", **fields)


def arrivals_of(sessions: Sequence[Session], options: SimulationOptions) -> Arrivals:
    trees = AgentTrees(sessions) if options.is_tree else None
    return Arrivals(Replays(sessions, 1.0, BLOCK), trees, options, lambda tokens: 0.0, seed=0)


def sent(
    sessions: Sequence[Session], options: SimulationOptions, *, latency_s: float, until_s: float
) -> list[tuple[float, int, int]]:
    """Times, replays and turns, where each turn takes the same time."""
    arrivals = arrivals_of(sessions, options)
    arrivals.begin(0.0)
    running: list[tuple[float, int, int]] = []
    found = []
    now_s = 0.0
    while now_s < until_s and (running or arrivals.next_s < math.inf):
        now_s = min([arrivals.next_s, *(end_s for end_s, _, _ in running)])
        for due in arrivals.pop_due(now_s):
            found.append((due.sent_s, due.number, due.turn_index))
            running.append((now_s + latency_s, due.number, due.turn_index))
        for ended in [turn for turn in running if turn[0] <= now_s]:
            running.remove(ended)
            arrivals.turn_ended(ended[1], ended[2], now_s)
    return found


PARENT = session("p", 0.0, 30.0, 5.0, latency_s=2.0)
CHILD = session("c", 0.0, 10.0, latency_s=2.0, parent_id="p", parent_turn=0, join_turn=1)
TREE = SimulationOptions(1, is_tree=True)


def test_parent_waits_for_its_sub_agent() -> None:
    # Recorded: the child takes 2 + 10 + 2 s of the parent's gap of 30 s, which leaves 16 s. Here
    # its turns take 1 s, so the parent goes on after 1 + (1 + 10 + 1) + 16 s.
    found = sent([PARENT, CHILD], TREE, latency_s=1.0, until_s=100.0)
    assert found == [(0.0, 0, 0), (1.0, 1, 0), (12.0, 1, 1), (29.0, 0, 1), (35.0, 0, 2)]


def test_parent_waits_for_the_last_of_its_sub_agents() -> None:
    slow = session("d", 0.0, 50.0, latency_s=2.0, parent_id="p", parent_turn=0, join_turn=1)
    found = sent([PARENT, CHILD, slow], TREE, latency_s=1.0, until_s=200.0)
    # The slower one, which outlasts the recorded gap, ends at 1 + 1 + 50 + 1 s.
    assert (53.0, 0, 1) in found


def test_sub_agent_without_a_join_runs_beside_its_parent() -> None:
    background = replace(CHILD, join_turn=None, turns=session("c", 0.0, 500.0).turns)
    found = sent([PARENT, background], TREE, latency_s=1.0, until_s=1000.0)
    assert [at_s for at_s, number, _ in found if number == 0] == [0.0, 31.0, 37.0]
    assert (502.0, 1, 1) in found


def test_unrecorded_join_is_inferred_from_recorded_times() -> None:
    trees = AgentTrees([PARENT, replace(CHILD, join_turn=None)])
    (join,) = trees.joins(0, 1)
    assert (join.child, join.residual_s, join.fills_gap) == (1, 16.0, True)


def test_sub_agent_starts_after_recorded_delay() -> None:
    tool = ToolSpan("Task", start_s=4.0, session_id="c")
    parent = replace(PARENT, turns=(replace(PARENT.turns[0], tools=(tool,)), *PARENT.turns[1:]))
    found = sent([parent, CHILD], TREE, latency_s=1.0, until_s=100.0)
    assert found[1] == (5.0, 1, 0)


def test_next_tree_starts_when_all_of_one_has_ended() -> None:
    background = replace(CHILD, join_turn=None, turns=session("c", 0.0, 500.0).turns)
    other = session("q", 0.0)
    found = sent([PARENT, background, other], TREE, latency_s=1.0, until_s=1000.0)
    assert found[-1] == (503.0, 2, 0)


def test_circle_of_parents_is_cut() -> None:
    first = session("a", 0.0, parent_id="b", parent_turn=0)
    second = session("b", 0.0, parent_id="a", parent_turn=0)
    found = sent([first, second], TREE, latency_s=1.0, until_s=10.0)
    assert sorted(number for _, number, _ in found) == [0, 1]


def test_sessions_repeat_until_the_window_ends() -> None:
    options = SimulationOptions(1, window=Window(0.0, 3.5))
    found = sent([session("a", 0.0), session("b", 0.0)], options, latency_s=1.0, until_s=3.5)
    assert [number for _, number, _ in found] == [0, 1, 2, 3]
    replays = Replays([session("a", 0.0), session("b", 0.0)], 1.0, BLOCK)
    assert [replays.session_id(number) for number in range(4)] == ["a", "b", "a@2", "b@2"]
    assert replays.keys(0, 0) != replays.keys(2, 0)


def test_mid_session_starts_lie_between_the_shares() -> None:
    long = session("a", *[1.0] * 1000)
    options = SimulationOptions(20, mid_session=(0.25, 0.75), window=Window(0.0, 1.0))
    arrivals = arrivals_of([replace(long, session_id=str(n)) for n in range(20)], options)
    arrivals.begin(0.0)
    first_turns = [due.turn_index for due in arrivals.pop_due(0.0)]
    assert len(first_turns) == 20
    assert min(first_turns) >= 249
    assert max(first_turns) <= 751
    assert len(set(first_turns)) > 10
    assert not arrivals.is_whole(0)


def test_later_sessions_start_at_their_first_turn() -> None:
    long = session("a", *[1.0] * 10)
    options = SimulationOptions(1, mid_session=(0.5, 0.5), window=Window(0.0, 100.0))
    found = sent([long, replace(long, session_id="b")], options, latency_s=0.0, until_s=8.0)
    assert found[0] == (0.0, 0, 5)
    assert next(turn for _, number, turn in found if number == 1) == 0


def test_time_zero_follows_all_warm_up_turns() -> None:
    quick, slow = session("a", 0.0, 50.0, 7.0), session("b", 0.0, 50.0, 50.0, 9.0)
    options = SimulationOptions(2, num_warm_up_turns=3, window=Window(0.0, 100.0))
    arrivals = arrivals_of([quick, slow], options)
    arrivals.begin(0.0)
    warm = list(arrivals.pop_due(0.0))
    assert all(due.is_warm_up for due in warm)
    assert arrivals.began_s == math.inf
    for number, turn_index in ((0, 0), (0, 1), (1, 0), (1, 1)):
        arrivals.turn_ended(number, turn_index, 1.0)
        list(arrivals.pop_due(1.0))
    assert arrivals.began_s == math.inf
    arrivals.turn_ended(1, 2, 4.0)
    assert arrivals.began_s == 4.0
    due = list(arrivals.pop_due(20.0))
    assert [(d.sent_s, d.number, d.turn_index) for d in due] == [(11.0, 0, 2), (13.0, 1, 3)]
    assert not any(d.is_warm_up for d in due)


def test_idle_time_is_cut_to_its_cap() -> None:
    options = SimulationOptions(1, idle_cap_s=10.0)
    arrivals = arrivals_of([session("a", 0.0, 60.0)], options)
    arrivals.begin(0.0)
    list(arrivals.pop_due(0.0))
    arrivals.turn_ended(0, 0, 1.0)
    assert arrivals.next_s == 61.0
    arrivals.cut_idle(1.0)
    assert arrivals.next_s == 11.0


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency": None, "window": Window(0.0, 1.0)},
        {"concurrency": None, "is_tree": True},
        {"concurrency": 1, "mid_session": (0.8, 0.2)},
        {"concurrency": 1, "mid_session": (0.5, 1.0)},
        {"concurrency": 1, "output_scale": 0.0},
    ],
)
def test_loads_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SimulationOptions(**fields)
