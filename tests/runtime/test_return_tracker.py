"""The return tracker: how pauses end, and when a session is gone."""

from __future__ import annotations

import pytest
from tests.policies.host import returns_after

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.predict.features import UNKNOWN_GAP, GapFeatures
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.runtime.return_tracker import ReturnTracker

TOOL = GapFeatures("other")
# Gaps are even on [8, 9.513657): 98 of 100 are shorter than 8 + 0.98 * 1.513657.
GONE_AFTER_S = 9.483384


@pytest.fixture
def returns() -> ReturnTimeModel:
    return returns_after({"other": [8.5] * 50})


@pytest.fixture
def table() -> SessionTable:
    return SessionTable(PrefixTree(), 1000)


def pause(table: SessionTable, tracker: ReturnTracker, at_s: float = 0.0) -> Session:
    """A session whose pause at a tool begins then."""
    session = table.add(None)
    session.state, session.gap, session.paused_at_s = SessionState.AT_TOOL, TOOL, at_s
    session.num_turns = 1
    tracker.paused(session)
    return session


def test_session_is_gone_after_nearly_all_gaps_of_its_kind(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    session = pause(table, tracker, at_s=100.0)
    assert not tracker.is_gone(session, 100.0 + GONE_AFTER_S - 0.001)
    assert tracker.is_gone(session, 100.0 + GONE_AFTER_S + 0.001)


def test_no_session_is_gone_before_any_gap_is_known(table: SessionTable) -> None:
    tracker = ReturnTracker(ReturnTimeModel())
    assert not tracker.is_gone(pause(table, tracker), 1e9)


def test_return_is_learned_with_its_gap(table: SessionTable) -> None:
    returns = ReturnTimeModel(parent_weight=1e-9)
    tracker = ReturnTracker(returns)
    tracker.returned(pause(table, tracker, at_s=100.0), 108.5)
    assert returns.num_observed == pytest.approx(1.0)
    assert returns.residual_quantile_s(TOOL, 0.0, 0.5) == pytest.approx(8.756828, abs=1e-5)


def test_session_in_the_engine_has_no_gap_to_learn(table: SessionTable) -> None:
    returns = ReturnTimeModel()
    tracker = ReturnTracker(returns)
    session = pause(table, tracker)
    session.state = SessionState.CLOSED
    tracker.returned(session, 8.5)
    assert returns.num_observed == 0.0


def test_return_share_counts_sessions_that_had_moved_on(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    assert tracker.return_share == 0.5  # 1 / (1 + 1) before any
    for _ in range(2):
        session = pause(table, tracker)
        session.has_moved_on = True
        tracker.returned(session, 1.0)
    assert tracker.return_share == 0.75  # 3 / (3 + 1)
    tracker.returned(pause(table, tracker), 1.0)  # it had not
    assert tracker.return_share == 0.75


def test_gone_session_that_had_moved_on_is_reported(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    session = pause(table, tracker)
    session.has_moved_on = True
    assert list(tracker.check(GONE_AFTER_S - 0.001)) == []
    assert list(tracker.check(GONE_AFTER_S + 0.001)) == [session]
    assert tracker.return_share == 1 / 3  # 1 / (1 + 2)
    assert list(tracker.check(1000.0)) == []  # once only


def test_gone_session_that_had_not_moved_on_is_only_learned(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    pause(table, tracker)
    before = returns.return_probability(TOOL, 0.0)
    assert list(tracker.check(1000.0)) == []
    # Of 50 pauses that ended in a return the prior of 0.99 counts like 16; one more did not end so.
    assert before == pytest.approx((50 + 16 * 0.99) / 66)
    assert returns.return_probability(TOOL, 0.0) == pytest.approx((50 + 16 * 0.99) / 67)


def test_session_that_has_returned_is_not_followed_any_more(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    session = pause(table, tracker)
    session.has_moved_on = True
    session.num_turns = 2
    assert list(tracker.check(1000.0)) == []
    assert tracker.return_share == 0.5


def test_four_pauses_are_checked_at_once(table: SessionTable, returns: ReturnTimeModel) -> None:
    tracker = ReturnTracker(returns)
    sessions = [pause(table, tracker) for _ in range(6)]
    for session in sessions:
        session.has_moved_on = True
    assert list(tracker.check(1000.0)) == sessions[:4]
    assert list(tracker.check(1000.0)) == sessions[4:]


def test_pauses_not_over_are_checked_again_in_turn(
    table: SessionTable, returns: ReturnTimeModel
) -> None:
    tracker = ReturnTracker(returns)
    sessions = [pause(table, tracker, at_s=float(10 * n)) for n in range(6)]
    for session in sessions:
        session.has_moved_on = True
    # At 10 s the first is gone, three others are not and go to the end.
    assert list(tracker.check(10.0)) == sessions[:1]
    assert list(tracker.check(1000.0)) == [*sessions[4:], *sessions[1:3]]


def test_pause_explained_after_the_return_is_learned_then(table: SessionTable) -> None:
    returns = ReturnTimeModel()
    tracker = ReturnTracker(returns)
    session = pause(table, tracker)
    session.awaits_end = True
    tracker.returned(session, 8.5)
    assert returns.num_observed == 0.0
    tracker.explained(session, 1, GapFeatures("human"))
    assert returns.num_observed == pytest.approx(1.0)
    tracker.explained(session, 1, GapFeatures("human"))  # once only
    assert returns.num_observed == pytest.approx(1.0)


def test_oldest_unexplained_pause_beyond_a_limit_is_unknown(
    table: SessionTable,
) -> None:
    returns = ReturnTimeModel(parent_weight=1e-9)
    tracker = ReturnTracker(returns)
    for _ in range(257):
        session = pause(table, tracker)
        session.awaits_end = True
        tracker.returned(session, 8.5)
    assert returns.num_observed == pytest.approx(1.0)
    assert 8.0 < returns.residual_quantile_s(UNKNOWN_GAP, 0.0, 0.5) < 9.52


def test_cleared_tracker_follows_nothing(table: SessionTable, returns: ReturnTimeModel) -> None:
    tracker = ReturnTracker(returns)
    session = pause(table, tracker)
    session.has_moved_on = session.awaits_end = True
    tracker.returned(session, 1.0)
    tracker.clear()
    assert list(tracker.check(1000.0)) == []
    tracker.explained(session, 1, TOOL)
    assert returns.num_observed == pytest.approx(50.0)
    assert tracker.return_share == pytest.approx(2 / 3)  # what was learned stays
