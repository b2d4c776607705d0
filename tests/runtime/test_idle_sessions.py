"""Idle sessions: the longest idle first, those without resident blocks apart."""

from __future__ import annotations

import pytest

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.session import Session, SessionTable
from holdfast.runtime.idle_sessions import IdleSessions


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(PrefixTree(), 1000)


def entered(table: SessionTable, idle: IdleSessions, num_sessions: int) -> list[Session]:
    sessions = [table.add(None) for _ in range(num_sessions)]
    for session in sessions:
        idle.enter(session)
    return sessions


def test_sessions_are_listed_in_the_order_of_their_pauses(table: SessionTable) -> None:
    idle = IdleSessions()
    first, second, third = entered(table, idle, 3)
    idle.leave(first)
    idle.enter(first)  # paused again
    assert list(idle) == [second, third, first]


def test_session_that_left_is_not_idle(table: SessionTable) -> None:
    idle = IdleSessions()
    (session,) = entered(table, idle, 1)
    assert session in idle
    for _ in range(2):
        idle.leave(session)
    assert session not in idle and not list(idle)


def test_session_without_blocks_is_set_apart(table: SessionTable) -> None:
    idle = IdleSessions()
    bare, other = entered(table, idle, 2)
    idle.lose_blocks(bare)
    assert list(idle) == [other] and bare not in idle
    assert idle.soonest_back(lambda _: 1.0, 9) == [bare]


def test_session_without_blocks_that_left_does_not_come_back(table: SessionTable) -> None:
    idle = IdleSessions()
    (session,) = entered(table, idle, 1)
    idle.lose_blocks(session)
    idle.leave(session)
    assert idle.soonest_back(lambda _: 1.0, 9) == []


def test_cleared_sessions_are_forgotten(table: SessionTable) -> None:
    idle = IdleSessions()
    bare, _ = entered(table, idle, 2)
    idle.lose_blocks(bare)
    idle.clear()
    assert not list(idle)
    assert idle.soonest_back(lambda _: 1.0, 9) == []


def test_highest_priority_is_soonest_back(table: SessionTable) -> None:
    idle = IdleSessions()
    sessions = entered(table, idle, 5)
    for session in sessions:
        idle.lose_blocks(session)
    priorities = dict(zip(sessions, (0.3, 0.9, 0.1, 0.5, 0.7), strict=True))
    found = idle.soonest_back(priorities.__getitem__, 3)
    assert found == [sessions[1], sessions[4], sessions[3]]


def test_four_times_as_many_are_compared_by_their_priority_now(table: SessionTable) -> None:
    """The others are left out by the priority that they had when they lost their blocks."""
    idle = IdleSessions()
    sessions = entered(table, idle, 10)
    for number, session in enumerate(sessions):
        session.retention_priority = float(number)
        idle.lose_blocks(session)
    compared: list[Session] = []

    def reversed_priority(session: Session) -> float:
        compared.append(session)
        return -session.retention_priority

    # Of ten the four with the last priorities 6 to 9 are compared; among these 6 is highest now.
    assert idle.soonest_back(reversed_priority, 1) == [sessions[6]]
    assert set(compared) == set(sessions[6:])


def test_the_most_recent_to_lose_their_blocks_are_compared(table: SessionTable) -> None:
    idle = IdleSessions()
    sessions = entered(table, idle, 300)
    for session in sessions:
        session.retention_priority = 1.0
        idle.lose_blocks(session)
    sessions[0].retention_priority = sessions[43].retention_priority = 9.0
    sessions[44].retention_priority = 5.0
    # 256 of 300 are compared: those from number 44 on.
    assert idle.soonest_back(lambda s: s.retention_priority, 1) == [sessions[44]]
