"""Which scores are brought up to date, and when."""

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


def test_a_score_is_stale_after_a_tenth_of_the_time_it_stands_for(sessions: list[Session]) -> None:
    freshness = RescoreSchedule()
    soon, late, *_ = sessions
    soon.retention_priority, late.retention_priority = 1 / 10, 1 / 100
    freshness.scored(soon, 50.0)
    freshness.scored(late, 50.0)

    assert list(freshness.due(50.9, 10)) == []
    assert list(freshness.due(51.1, 10)) == [soon]
    assert list(freshness.due(61.0, 10)) == [late]


def test_the_stalest_come_first_and_no_more_than_asked_for(sessions: list[Session]) -> None:
    freshness = RescoreSchedule()
    for number, session in enumerate(sessions):
        session.retention_priority = 1 / (10 + number)
        freshness.scored(session, 0.0)

    assert list(freshness.due(100.0, 2)) == sessions[:2]
    assert list(freshness.due(100.0, 9)) == sessions[2:]


def test_a_score_renewed_in_the_meantime_waits_for_its_new_time(sessions: list[Session]) -> None:
    freshness = RescoreSchedule()
    session = sessions[0]
    session.retention_priority = 1 / 10
    freshness.scored(session, 0.0)
    freshness.scored(session, 5.0)

    assert list(freshness.due(1.5, 10)) == []
    assert list(freshness.due(6.5, 10)) == [session]


def test_who_is_busy_expected_never_or_forgotten_is_not_looked_at(sessions: list[Session]) -> None:
    freshness = RescoreSchedule()
    busy, never, forgotten, away = sessions
    busy.state = SessionState.RUNNING
    (
        busy.retention_priority,
        never.retention_priority,
        forgotten.retention_priority,
        away.retention_priority,
    ) = 1.0, 0.0, 1.0, 1.0
    for session in sessions:
        freshness.scored(session, 0.0)
    freshness.forget(forgotten)

    assert busy.stale_at_s == never.stale_at_s == math.inf
    assert list(freshness.due(1e9, 10)) == [away]
