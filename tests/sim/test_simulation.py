"""Simulated runs on an engine with simple costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.sim.one_at_a_time import BLOCK, FixedCost, OneAtATime, session, turn

from holdfast.core.commands import DeclareWorkflow, EndWorkflow
from holdfast.core.results import TurnRecord
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph
from holdfast.errors import ConfigError, HoldfastError
from holdfast.sim.clock import VirtualClock
from holdfast.sim.fleet import Fleet
from holdfast.sim.load import SimulationOptions
from holdfast.sim.replays import Replays
from holdfast.sim.simulation import Simulation, SimulationRecords
from holdfast.traces.record import Session


def run(
    sessions: Sequence[Session],
    concurrency: int | None = 1,
    *,
    cost: FixedCost | None = None,
    time_scale: float = 1.0,
    options: SimulationOptions | None = None,
) -> tuple[SimulationRecords, OneAtATime]:
    clock = VirtualClock()
    engine = OneAtATime(clock)
    simulation = Simulation(
        Fleet([engine], cost or FixedCost(), clock),
        Replays(sessions, 1.0, BLOCK),
        options or SimulationOptions(concurrency, time_scale=time_scale),
    )
    return simulation.run(), engine


def latencies(records: SimulationRecords) -> list[float | None]:
    return [turn.request_latency_s for turn in records.turns]


def test_turn_latency_is_sum_of_its_steps() -> None:
    records, _ = run([session("a", turn(0, [1, 2], 1, 3))])
    (record,) = records.turns
    # Nine prompt tokens take 1 s each, two decoded tokens 0.1 s each.
    assert record.ttft_s == pytest.approx(9.0)
    assert record.request_latency_s == pytest.approx(9.2)
    assert records.makespan_s == pytest.approx(9.2)


def test_next_turn_sent_after_gap_hits_prefix() -> None:
    records, _ = run([session("a", turn(0, [1], 0, 1), turn(5, [1, 2], 0, 1))])
    second = records.turns[1]
    assert second.sent_s == pytest.approx(4.0 + 5.0)
    assert second.cached_tokens == 4
    assert second.request_latency_s == pytest.approx(4.0)
    assert (second.appended_tokens, second.first_seen_tokens) == (4, 4)


def test_time_scale_applies_to_gaps_only() -> None:
    records, _ = run([session("a", turn(0, [1], 0, 1), turn(5, [1, 2], 0, 1))], time_scale=0.1)
    assert records.turns[1].sent_s == pytest.approx(4.5)
    assert latencies(records) == [pytest.approx(4.0), pytest.approx(4.0)]


def test_next_session_starts_when_one_ends() -> None:
    records, engine = run([session(n, turn(0, [i], 0, 1)) for i, n in enumerate("abc")], 2)
    assert [at_s for at_s, _ in engine.submitted] == [0.0, 0.0, pytest.approx(4.0)]
    assert [done.session_id for done in records.sessions] == ["a", "b", "c"]
    assert [done.started_s for done in records.sessions] == [0.0, 0.0, pytest.approx(4.0)]


def test_open_loop_starts_sessions_at_recorded_arrivals() -> None:
    sessions = [
        session("a", turn(0, [1], 0, 1), start_s=1.0),
        session("b", turn(0, [2], 0, 1), start_s=20.0),
    ]
    records, _ = run(sessions, None)
    assert [t.sent_s for t in records.turns] == [pytest.approx(0.0), pytest.approx(19.0)]


def test_request_overhead_precedes_the_engine() -> None:
    records, engine = run(
        [session("a", turn(0, [1], 0, 1), turn(5, [1, 2], 0, 1))], cost=FixedCost(0.25)
    )
    assert latencies(records) == [pytest.approx(4.25), pytest.approx(4.25)]
    assert engine.submitted[0][0] == pytest.approx(0.25)
    assert records.turns[1].sent_s == pytest.approx(4.25 + 5.0)


def test_decode_steps_merged_up_to_next_request() -> None:
    busy = session("busy", turn(0, [1], 0, 101))
    late = session("late", turn(0, [2], 0, 1), turn(3.0, [2, 3], 0, 1))
    records, engine = run([late, busy], 2)
    by_name: dict[str, list[TurnRecord]] = {}
    for record in records.turns:
        by_name.setdefault(record.session_id, []).append(record)
    # `late` returns at 4 + 3 s; `busy` decodes from 8 s to 18 s without an interruption.
    assert by_name["late"][1].sent_s == pytest.approx(7.0)
    assert by_name["busy"][0].last_token_s == pytest.approx(18.0)
    assert len(engine.repeats) < 10


def test_merged_decode_steps_keep_latency() -> None:
    sessions = [session("a", turn(0, [1], 0, 50), turn(1.0, [1, 2], 0, 50))]
    together, engine = run(sessions)
    assert max(engine.repeats) > 1
    assert latencies(together) == [pytest.approx(4 + 4.9), pytest.approx(4 + 4.9)]


def test_idle_engine_with_requests_raises() -> None:
    clock = VirtualClock()
    engine = OneAtATime(clock, holds_all=True)
    stuck = Simulation(
        Fleet([engine], FixedCost(), clock),
        Replays([session("a", turn(0, [1], 0, 1))], 1.0, BLOCK),
        SimulationOptions(1),
    )
    with pytest.raises(HoldfastError, match="holds 1 requests and runs none"):
        stuck.run()


@pytest.mark.parametrize(
    ("concurrency", "time_scale"), [(0, 1.0), (1, -1.0), (1, float("nan")), (1, float("inf"))]
)
def test_impossible_options_refused(concurrency: int, time_scale: float) -> None:
    with pytest.raises(ConfigError):
        SimulationOptions(concurrency, time_scale=time_scale)


def test_requests_name_agent_and_workflow_only_when_asked() -> None:
    flow = Session("flow", BLOCK, (replace(turn(0.0, [1], 1, 1), agent="planner"),), "test")
    called = Session("call", BLOCK, (turn(0.0, [2], 1, 1),), "test", agent="coder")
    for asked in (True, False):
        options = SimulationOptions(1, turn_ends=False, agent_ids=asked)
        _, engine = run([flow, called], options=options)
        hints = [request.hints for _, request in engine.submitted]
        named = [
            {"holdfast_workflow_id": "flow", "holdfast_agent_id": "planner"},
            {"holdfast_workflow_id": "call", "holdfast_agent_id": "coder"},
        ]
        assert hints == (named if asked else [{}, {}])


def test_graph_declared_before_first_request_ended_with_last() -> None:
    graph = WorkflowGraph((AgentStep("planner"),))
    turns = [replace(turn(0.0, [number], 1, 1), agent="planner") for number in range(2)]
    flow = Session("flow", BLOCK, tuple(turns), "test", graph=graph)
    _, engine = run([flow], options=SimulationOptions(1, agent_ids=True, graphs=True))
    declared = DeclareWorkflow("", "flow", graph)
    assert engine.commands == [(0, declared), (2, EndWorkflow("", "flow"))]
    _, engine = run([flow], options=SimulationOptions(1, agent_ids=True))
    assert engine.commands == []
    with pytest.raises(ConfigError, match="requests do not"):
        SimulationOptions(1, graphs=True)
