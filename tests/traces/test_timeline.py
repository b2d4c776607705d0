"""Start and end times of turns in families of sessions."""

from __future__ import annotations

from dataclasses import replace

from holdfast.traces.record import Session, Turn
from holdfast.traces.timeline import Span, family_timeline

MAIN = Session(
    "main",
    64,
    (Turn(0.0, 1, 1, (), latency_s=2.0), Turn(5.0, 1, 1, (), latency_s=3.0)),
    "test",
    start_s=10.0,
)
SUB = Session("sub", 64, (Turn(0.0, 1, 1, ()), Turn(4.0, 1, 1, ())), "test", parent_id="main")


def test_gaps_and_latencies_add_up_from_arrival() -> None:
    assert family_timeline([MAIN])["main"] == (Span(10.0, 12.0), Span(17.0, 20.0))


def test_main_agent_without_arrival_starts_at_zero() -> None:
    assert family_timeline([replace(MAIN, start_s=None)])["main"][0] == Span(0.0, 2.0)


def test_sub_agent_starts_at_end_of_calling_turn() -> None:
    called = replace(SUB, parent_turn=1)
    assert family_timeline([MAIN, called])["sub"] == (Span(20.0, 20.0), Span(24.0, 24.0))


def test_sub_agent_with_unknown_turn_starts_with_parent() -> None:
    for turn in (None, 2):
        timeline = family_timeline([MAIN, replace(SUB, parent_turn=turn)])
        assert timeline["sub"][0] == Span(10.0, 10.0)


def test_sub_agent_of_sub_agent_starts_in_its_parent() -> None:
    nested = replace(SUB, session_id="nested", parent_id="sub", parent_turn=1)
    timeline = family_timeline([MAIN, replace(SUB, parent_turn=0), nested])
    assert timeline["nested"][0] == Span(16.0, 16.0)
