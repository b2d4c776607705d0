"""Which sessions are rescored, and when."""

from __future__ import annotations

import math

import pytest

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.runtime.rescore_schedule import RescoreSchedule


@pytest.fixture
def sessions() -> list[Session]:
    table = SessionTable(PrefixTree(), 10)
    found = [table.add(None) for _ in range(4)]
    for session in found:
        session.state = SessionState.AT_TOOL
    return found


def test_a_priority_is_stale_after_a_tenth_of_its_time(sessions: list[Session]) -> None:
    schedule = RescoreSchedule()
    soon, late, *_ = sessions
    soon.retention_priority, late.retention_priority = 1 / 10, 1 / 100
    schedule.scored(soon, 50.0)
    schedule.scored(late, 50.0)

    assert list(schedule.due(50.9, 10)) == []
    assert list(schedule.due(51.1, 10)) == [soon]
    assert list(schedule.due(61.0, 10)) == [late]


def test_the_stalest_sessions_come_first(sessions: list[Session]) -> None:
    schedule = RescoreSchedule()
    for number, session in enumerate(sessions):
        session.retention_priority = 1 / (10 + number)
        schedule.scored(session, 0.0)

    assert list(schedule.due(100.0, 2)) == sessions[:2]
    assert list(schedule.due(100.0, 9)) == sessions[2:]


def test_a_rescored_session_waits_for_its_new_time(sessions: list[Session]) -> None:
    schedule = RescoreSchedule()
    session = sessions[0]
    session.retention_priority = 1 / 10
    schedule.scored(session, 0.0)
    schedule.scored(session, 5.0)

    assert list(schedule.due(1.5, 10)) == []
    assert list(schedule.due(6.5, 10)) == [session]


def test_busy_hopeless_or_forgotten_sessions_are_not_due(sessions: list[Session]) -> None:
    schedule = RescoreSchedule()
    busy, never, forgotten, away = sessions
    busy.state = SessionState.RUNNING
    (
        busy.retention_priority,
        never.retention_priority,
        forgotten.retention_priority,
        away.retention_priority,
    ) = 1.0, 0.0, 1.0, 1.0
    for session in sessions:
        schedule.scored(session, 0.0)
    schedule.forget(forgotten)

    assert busy.stale_at_s == never.stale_at_s == math.inf
    assert list(schedule.due(1e9, 10)) == [away]
