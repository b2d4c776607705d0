"""Eviction by return rate, with hand-worked numbers.

A block takes 1.6 s to compute. Before any gap is known, the typical gap of a tool is
restore_s * (2^(1 / 0.8) - 1) = 1.378414 restore_s, and 99 of 100 pauses at a tool end in a return.
"""

from __future__ import annotations

import pytest
from tests.policies.host import HUMAN, TOOL, Cache, hashes_of, returns_after

from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass


def rate_at(cache: Cache, session: Session, away_s: float) -> float:
    """Expected returns a second after so long a pause."""
    cache.at(session.paused_at_s + away_s)
    return cache.eviction.session_priority(session)


def test_rate_before_any_gap_goes_by_the_restore_cost() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("aa"))
    # 0.99 / (0 + 1.378414 * 3.2); after 4 s: 0.99 / (4 + 4.410925)
    assert rate_at(cache, session, 0.0) == pytest.approx(0.224443, abs=1e-6)
    assert rate_at(cache, session, 4.0) == pytest.approx(0.117704, abs=1e-6)


def test_human_is_expected_later_than_a_tool() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("aa"), HUMAN)
    # A human takes 64 times as long and returns from 85 of 100 pauses: 0.85 / (64 * 4.410925)
    assert rate_at(cache, session, 0.0) == pytest.approx(0.003011, abs=1e-6)


def test_typical_gap_is_the_median_once_gaps_are_known() -> None:
    cache = Cache("return-rate", 100, returns=returns_after({"other": [8.5] * 50}))
    session = cache.session("a", hashes_of("aa"))
    # Gaps are even on [8, 9.513657): median 8.756828. Of 50 pauses all ended in a return; the prior
    # of 0.99 counts like 16: (50 + 16 * 0.99) / 66 = 0.997576.
    assert rate_at(cache, session, 0.0) == pytest.approx(0.997576 / 8.756828, abs=1e-6)


def test_rate_falls_as_the_pause_outlasts_known_gaps() -> None:
    cache = Cache("return-rate", 100, returns=returns_after({"other": [8.5] * 50}))
    session = cache.session("a", hashes_of("aa"))
    # At 8.756828 s half of those that return are back: with the speed of a session not known yet
    # P = 0.997576 / 2 / (0.997576 / 2 + 0.002424) = 0.995164, over 2 * 8.756828 s.
    assert rate_at(cache, session, 8.756828) == pytest.approx(0.056822, abs=1e-5)
    # At 20 s all are: no return is expected.
    assert rate_at(cache, session, 20.0) == pytest.approx(0.0, abs=1e-6)


def test_hint_replaces_the_prediction_until_it_has_passed() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("aa"))
    session.expected_gap_s = 10.0
    assert rate_at(cache, session, 2.0) == 1 / 8
    assert rate_at(cache, session, 9.5) == 2.0
    # Past it the prediction counts again: 0.99 / (12 + 4.410925)
    assert rate_at(cache, session, 12.0) == pytest.approx(0.060326, abs=1e-6)


def test_session_passed_by_a_sibling_has_the_return_share() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("aa"))
    session.has_moved_on = True
    # Before any such session is followed to its end one of two is taken to return.
    assert rate_at(cache, session, 0.0) == pytest.approx(0.224443 / 2, abs=1e-6)


def test_session_in_the_engine_rates_its_restore_cost() -> None:
    cache = Cache("return-rate", 100)
    turn = cache.arrive("a", hashes_of("aaaa"))
    assert cache.eviction.session_priority(turn.session) == pytest.approx(1 / 6.4)


def test_only_recency_counts_while_predictions_are_not_trusted() -> None:
    cache = Cache("return-rate", 100, returns=returns_after({"human": [8.5] * 50}))
    tool, human = cache.session("a", hashes_of("a")), cache.session("b", hashes_of("b"), HUMAN)
    cache.runtime.guard.trusts = False
    assert rate_at(cache, tool, 4.0) == rate_at(cache, human, 4.0) == 1 / 4


def test_rates_of_a_shared_nodes_users_add_up() -> None:
    cache = Cache("return-rate", 100)
    first, second = (cache.session(f"r{n}", hashes_of("ss" + n)) for n in "12")
    first.retention_priority, second.retention_priority = 0.5, 0.25
    assert cache.priority("ss") == (PriorityClass.LIVE, 0.75)
    assert cache.priority("ss1") == (PriorityClass.LIVE, 0.5)


def test_node_of_closed_sessions_ranks_below_any_other() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("a"))
    cache.runtime.session_closed(session)
    assert cache.priority("a") == (PriorityClass.CLOSED, 0.0)


def test_urgent_session_ranks_higher_while_it_has_a_reservation() -> None:
    cache = Cache("return-rate", 100)
    session = cache.session("a", hashes_of("a"))
    session.priority, session.has_reservation = -1, True
    # Half a class up by -0.5 * -1 / (1 + 1) = 0.25; half a class down without a reservation.
    assert cache.priority("a")[0] == PriorityClass.LIVE + 0.25
    session.has_reservation = False
    assert cache.priority("a")[0] == PriorityClass.LIVE - 0.5


def test_lowest_return_rate_evicted_first() -> None:
    cache = Cache("return-rate", 6)
    cache.run("human", hashes_of("hh"), HUMAN, served_s=0.0)
    cache.run("early", hashes_of("ee"), TOOL, served_s=0.0)
    cache.at(5.0)
    cache.run("late", hashes_of("ll"), TOOL, served_s=0.0)
    cache.at(6.0)
    # The human has 0.85 / (6 + 282.3), the early one 0.99 / (6 + 4.4), the late 0.99 / (1 + 4.4).
    assert cache.evict(6) == ["hh", "h", "ee", "e", "ll", "l"]


def test_stale_priority_is_rescored_at_the_next_step() -> None:
    """A rate is stale after a tenth of its inverse: 0.224443 a second after 0.4456 s."""
    cache = Cache("return-rate", 4)
    session = cache.session("a", hashes_of("aa"))
    cache.at(0.44)
    cache.runtime.step(num_stale=1)
    assert session.retention_priority == pytest.approx(0.224443, abs=1e-6)
    cache.at(100.0)
    cache.runtime.step(num_stale=1)
    assert session.retention_priority == pytest.approx(0.99 / (100 + 4.410925), abs=1e-6)
