"""The budget: reservations in the order of their release, and what restoring blocks costs.

A block takes 1.6 s to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.offload_port import NoOffload
from holdfast.core.session import Session
from holdfast.policies.admission import Budget
from holdfast.policies.base import AdmissionPolicy


@dataclass
class Tier(NoOffload):
    """A tier that stores the first so many blocks of any prompt."""

    num_blocks: int
    block_s: float = 0.1

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        del guess
        return max(min(len(hashes), self.num_blocks) - first, 0)

    def load_s(self, num_blocks: float) -> float:
        return num_blocks * self.block_s


@pytest.fixture
def cache() -> Cache:
    return Cache("working-set", 40)


def budget_of(cache: Cache, blocks: int = 0, slots: int = 8, num_running: int = 1) -> Budget:
    admission = cache.runtime.policies.admission
    return cache.runtime._reservations.budget(blocks, slots, num_running, admission)


def retained_share(cache: Cache) -> float:
    return cache.runtime._reservations.retention.share


def test_budget_states_what_the_engine_has(cache: Cache) -> None:
    cache.at(7.0)
    budget = budget_of(cache, blocks=-3, slots=2, num_running=5)
    assert (budget.now_s, budget.blocks, budget.slots, budget.num_running) == (7.0, -3, 2, 5)


def test_only_idle_sessions_with_reservations_are_listed(cache: Cache) -> None:
    reserved, released, back = (cache.session(name, hashes_of(name)) for name in "abc")
    cache.runtime._blocks.release(released)
    cache.arrive("c2", hashes_of("cc"))
    assert list(budget_of(cache).reservations()) == [reserved]
    assert not back.has_reservation


def test_longest_idle_reservation_comes_first(cache: Cache) -> None:
    sessions = []
    for name, at_s in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        sessions.append(cache.session(name, hashes_of(name)))
        sessions[-1].paused_at_s = at_s
    a, b, c = sessions
    cache.at(10.0)
    assert list(budget_of(cache).reservations()) == [b, c, a]


def test_hint_of_a_long_pause_counts_as_idle_time(cache: Cache) -> None:
    early, hinted = cache.session("a", hashes_of("a")), cache.session("b", hashes_of("b"))
    early.paused_at_s, hinted.paused_at_s, hinted.expected_gap_s = 0.0, 9.0, 60.0
    cache.at(10.0)
    assert list(budget_of(cache).reservations()) == [hinted, early]


def test_least_urgent_reservation_comes_before_longer_idle_ones(cache: Cache) -> None:
    urgent, plain, late = (cache.session(name, hashes_of(name)) for name in "abc")
    for session, priority, at_s in ((urgent, -1, 0.0), (plain, None, 1.0), (late, 5, 2.0)):
        session.priority, session.paused_at_s = priority, at_s
    cache.at(10.0)
    assert list(budget_of(cache).reservations()) == [late, plain, urgent]


def test_question_for_reservations_changes_nothing(cache: Cache) -> None:
    session = cache.session("a", hashes_of("abc"))
    budget = budget_of(cache)
    for _ in range(2):
        assert list(budget.reservations()) == [session]
        assert budget.freed_by(session) == 3
    assert session.has_reservation


def restore_s(cache: Cache, session: Session, num_blocks: int) -> float:
    return budget_of(cache).restore_s(session, num_blocks)


def test_blocks_cost_their_computation_without_a_tier(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a" * 8))
    assert restore_s(cache, session, 5) == pytest.approx(5 * 1.6)


def test_stored_blocks_cost_the_load(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a" * 8))
    cache.runtime.tier = Tier(8, block_s=0.1)
    assert restore_s(cache, session, 5) == pytest.approx(0.5)


def test_load_slower_than_computing_is_not_taken(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a" * 8))
    cache.runtime.tier = Tier(8, block_s=2.0)
    assert restore_s(cache, session, 5) == pytest.approx(8.0)


def test_copies_that_may_be_gone_cost_in_between(cache: Cache) -> None:
    session = cache.session("a", hashes_of("a" * 8))
    cache.runtime.tier = Tier(8, block_s=0.1)
    cache.runtime._reservations.retention.share = 0.75
    # Three of four times loaded in 0.5 s, else computed in 8 s.
    assert restore_s(cache, session, 5) == pytest.approx(0.75 * 0.5 + 0.25 * 8.0)


@pytest.mark.parametrize(
    ("num_stored", "expected"),
    [
        (8, 1.0),  # all six that were evicted are stored
        (5, 0.975),  # three of six: 0.95 * 1 + 0.05 * 3 / 6
        (2, 0.95),  # none: 0.95 * 1
    ],
)
def test_retention_learned_from_blocks_evicted_meanwhile(num_stored: int, expected: float) -> None:
    cache = Cache("working-set", 9)
    session = cache.session("a", hashes_of("ss" + "a" * 6))
    cache.session("b", hashes_of("ssb"))
    # The two shared blocks stay.
    assert sorted(cache.evict(7)) == ["ss" + "a" * n for n in range(1, 7)] + ["ssb"]
    cache.runtime.tier = Tier(num_stored)
    cache.runtime._reservations.returned(session, hashes_of("ss" + "a" * 7), cache.runtime.tier)
    assert retained_share(cache) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prompt", "num_stored", "expected"),
    [
        ("ss" + "a" * 2, 3, 0.975),  # of the six evicted blocks it asks for two, one is stored
        ("ss", 8, 1.0),  # it asks for none
    ],
)
def test_shorter_prompt_tells_of_its_own_blocks(
    prompt: str, num_stored: int, expected: float
) -> None:
    cache = Cache("working-set", 9)
    session = cache.session("a", hashes_of("ss" + "a" * 6))
    cache.session("b", hashes_of("ssb"))
    cache.evict(7)
    cache.runtime._reservations.returned(session, hashes_of(prompt), Tier(num_stored))
    assert retained_share(cache) == pytest.approx(expected)


def test_nothing_is_learned_where_nothing_was_evicted(cache: Cache) -> None:
    cache.session("a", hashes_of("abc"))
    cache.runtime.tier = Tier(0)
    cache.session("a2", hashes_of("abcd"))
    assert retained_share(cache) == 1.0


def test_admission_says_how_long_a_session_counts_as_idle(cache: Cache) -> None:
    class Backwards(AdmissionPolicy):
        def idle_s(self, session: Session) -> float:
            return -super().idle_s(session)

    early, late = cache.session("a", hashes_of("a")), cache.session("b", hashes_of("b"))
    early.paused_at_s, late.paused_at_s = 0.0, 1.0
    cache.at(5.0)
    budget = cache.runtime._reservations.budget(0, 8, 1, Backwards(cache.runtime))
    assert list(budget.reservations()) == [late, early]
