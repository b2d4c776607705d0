"""What a simulated client tells the engine about its tools, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.sim.one_at_a_time import BLOCK, turn
from tests.sim.test_simulation import run

from holdfast.core.commands import ToolFinished, ToolStarted
from holdfast.errors import ConfigError
from holdfast.sim.load import SimulationOptions
from holdfast.sim.tool_events import ToolEvents
from holdfast.traces.record import Session, ToolSpan, Turn

FINISHED = ToolFinished(tenant="", session_id="s")


def started(tool: str) -> ToolStarted:
    return ToolStarted(tenant="", session_id="s", tool=tool)


def calling(*spans: ToolSpan) -> Turn:
    return replace(turn(0.0, [1], 1, 1), ended_by="tool", tool_name="Bash", tools=spans)


def test_result_is_known_when_the_slowest_tool_has_ended() -> None:
    events = ToolEvents(time_scale=2.0)
    spans = ToolSpan("Read", end_s=1.0), ToolSpan("Bash", end_s=3.0)
    assert list(events.paused("s", calling(*spans), 10.0)) == [started("Read"), started("Bash")]
    assert events.next_s == 16.0
    assert list(events.finished(15.9)) == []
    assert list(events.finished(16.0)) == [FINISHED]
    assert list(events.returned("s")) == []


def test_next_turn_ends_tools_whose_end_is_unknown() -> None:
    events = ToolEvents()
    assert list(events.paused("s", calling(ToolSpan("Bash")), 0.0)) == [started("Bash")]
    assert events.next_s == float("inf")
    assert list(events.returned("s")) == [FINISHED]


def test_an_end_after_the_next_turn_is_not_told_twice() -> None:
    events = ToolEvents()
    list(events.paused("s", calling(ToolSpan("Bash", end_s=9.0)), 0.0))
    assert list(events.returned("s")) == [FINISHED]
    list(events.paused("s", calling(ToolSpan("Bash", end_s=90.0)), 5.0))
    assert list(events.finished(50.0)) == []


def test_background_tools_and_messages_tell_nothing() -> None:
    events = ToolEvents()
    background = calling(ToolSpan("Bash", end_s=9.0, is_background=True))
    for silent in (background, replace(calling(), ended_by="human"), turn(0.0, [1], 1, 1)):
        assert list(events.paused("s", silent, 0.0)) == []
    assert list(events.paused("s", calling(), 0.0)) == [started("Bash")]


def test_engine_is_told_between_the_turns_only_if_asked() -> None:
    turns = (calling(ToolSpan("Bash", end_s=4.0)), replace(turn(10.0, [1, 2], 1, 1)))
    session = Session("s", BLOCK, turns, "test")
    records, engine = run([session], options=SimulationOptions(1, session_ids=True))
    assert engine.commands == []
    options = SimulationOptions(1, session_ids=True, tool_events=True)
    told, engine = run([session], options=options)
    assert engine.commands == [(1, started("Bash")), (1, FINISHED)]
    assert [t.sent_s for t in told.turns] == [t.sent_s for t in records.turns]
    with pytest.raises(ConfigError, match="requests do not"):
        SimulationOptions(1, tool_events=True)
