"""SAGA: 0.3 idle / idle_max + 0.5 (1 - P_reuse) + 0.2 size / size_max, with hand-worked numbers."""

from __future__ import annotations

import pytest
from tests.policies.host import HUMAN, TOOL, Cache, hashes_of, returns_after

from holdfast.core.session import Session
from holdfast.errors import PolicyError
from holdfast.policies.base import PriorityClass
from holdfast.policies.published.saga import Saga

PAST_TTL = -2.0


def pause(cache: Cache, name: str, at_s: float, num_blocks: int) -> Session:
    """A session of that many blocks whose pause begins then."""
    cache.at(at_s)
    return cache.session(name, hashes_of(name * num_blocks))


def score_of(cache: Cache, session: Session) -> float:
    """The paper's score: the highest is evicted first."""
    return -cache.eviction.session_priority(session)


def policy_of(cache: Cache) -> Saga:
    assert isinstance(cache.eviction, Saga)
    return cache.eviction


def test_score_weighs_idleness_reuse_and_size() -> None:
    cache = Cache("saga", 20)
    early, late = pause(cache, "a", 0.0, 4), pause(cache, "b", 6.0, 2)
    cache.at(10.0)
    # Two pauses of that kind began, none has ended: P = (1 + 0) / (1 + 2).
    # The first: 0.3 * 10 / 10 + 0.5 * 2 / 3 + 0.2 * 4 / 4.
    # The second: 0.3 * 4 / 10 + 0.5 * 2 / 3 + 0.2 * 2 / 4.
    assert score_of(cache, early) == pytest.approx(0.833333, abs=1e-6)
    assert score_of(cache, late) == pytest.approx(0.553333, abs=1e-6)


def test_weights_are_settings() -> None:
    cache = Cache("saga:idle_weight=0.5:reuse_weight=0.1:size_weight=0.4", 20)
    pause(cache, "a", 0.0, 4)
    late = pause(cache, "b", 6.0, 2)
    cache.at(10.0)
    # 0.5 * 4 / 10 + 0.1 * 2 / 3 + 0.4 * 2 / 4
    assert score_of(cache, late) == pytest.approx(0.466667, abs=1e-6)


def test_reuse_is_the_share_of_pauses_that_ended_in_a_return() -> None:
    cache = Cache("saga", 100)
    for number in range(1, 4):
        session = pause(cache, "a", float(number), number)
    cache.at(3.0)
    # Three pauses began, two ended: P = (1 + 2) / (1 + 3) = 0.75; all of the context was kept.
    # idle 0, the largest: 0.5 * 0.25 + 0.2
    assert score_of(cache, session) == pytest.approx(0.325)


def test_reuse_is_counted_by_what_ended_the_turn() -> None:
    cache = Cache("saga", 100)
    for number in range(1, 4):
        pause(cache, "a", float(number), number)
    human = cache.session("h", hashes_of("h"), HUMAN)
    # The first pause for a human: P = (1 + 0) / (1 + 1). idle 0: 0.5 * 0.5 + 0.2 * 1 / 3
    assert score_of(cache, human) == pytest.approx(0.316667, abs=1e-6)


def test_reuse_falls_with_the_share_of_the_context_that_is_cut() -> None:
    cache = Cache("saga", 100)
    cache.run("a", hashes_of("aaaa"), TOOL, group="one", served_s=0.0)
    cache.runtime.turn_end_known(next(iter(cache.runtime.sessions)), 1, HUMAN)
    cache.at(1.0)
    turn = cache.arrive("a2", hashes_of("ab"), group="one")  # half as long
    assert turn.session.num_turns == 2
    # kept = min(4, 2) / 4 = 0.5; a tenth of the way from 1: 0.95
    assert policy_of(cache)._kept["human"] == pytest.approx(0.95)


def test_pause_is_counted_once_under_what_is_known_best() -> None:
    cache = Cache("saga", 100)
    session = cache.session("a", hashes_of("a"), None)
    assert dict(policy_of(cache)._paused) == {"unknown": 2.0}
    cache.runtime.turn_end_known(session, 1, HUMAN)
    assert dict(policy_of(cache)._paused) == {"unknown": 1.0, "human": 2.0}


def test_session_in_the_engine_scores_zero() -> None:
    cache = Cache("saga", 100)
    assert score_of(cache, cache.arrive("a", hashes_of("a")).session) == 0.0


def test_time_to_live_before_any_gap_is_five_minutes() -> None:
    cache = Cache("saga", 100)
    session = pause(cache, "a", 0.0, 1)
    cache.at(300.0)
    # 0.3 * 1 + 0.5 * 0.5 + 0.2 * 1
    assert score_of(cache, session) == pytest.approx(0.75)
    cache.at(300.5)
    assert cache.eviction.session_priority(session) == PAST_TTL


@pytest.mark.parametrize(
    ("paused_blocks", "expected_s"),
    [
        # Gaps are even on [8, 9.513657): the 95 % quantile is 8 + 0.95 * 1.513657 = 9.437974.
        (70, 9.437974),  # load 0.7: no pressure
        (80, 7.078481),  # m = (0.8 - 0.7) / 0.2 = 0.5: three quarters
        (90, 4.718987),  # m = 1: half
        (100, 4.718987),
    ],
)
def test_time_to_live_is_cut_as_the_cache_fills(paused_blocks: int, expected_s: float) -> None:
    cache = Cache("saga", 100, returns=returns_after({"other": [8.5] * 50}))
    session = pause(cache, "a", 0.0, paused_blocks)
    assert policy_of(cache)._time_to_live_s(session) == pytest.approx(expected_s, abs=1e-5)
    cache.at(expected_s - 0.01)
    assert cache.eviction.session_priority(session) > PAST_TTL
    cache.at(expected_s + 0.01)
    assert cache.eviction.session_priority(session) == PAST_TTL


def test_load_at_which_the_time_to_live_falls_is_a_setting() -> None:
    name = "saga:low_load=0.5:high_load=1:ttl_quantile=0.5"
    cache = Cache(name, 100, returns=returns_after({"other": [8.5] * 50}))
    session = pause(cache, "a", 0.0, 75)
    # The median is 8.756828; m = (0.75 - 0.5) / 0.5 = 0.5: three quarters.
    assert policy_of(cache)._time_to_live_s(session) == pytest.approx(6.567621, abs=1e-5)


def test_loads_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(PolicyError, match=r"policy 'saga': high_load is 0.5, not above low_load"):
        Cache("saga:high_load=0.5", 10)


def test_time_to_live_never_exceeds_five_minutes() -> None:
    cache = Cache("saga", 100, returns=returns_after({"other": [1000.0] * 50}))
    session = pause(cache, "a", 0.0, 1)
    assert policy_of(cache)._time_to_live_s(session) == 300.0


def test_highest_score_evicted_first() -> None:
    cache = Cache("saga", 12)
    pause(cache, "a", 0.0, 2)
    pause(cache, "b", 1.0, 8)
    pause(cache, "c", 8.0, 2)
    cache.at(10.0)
    cache.rescore()
    # All have P = 1 / 4. Idle and size: a 0.3 + 0.2 * 2 / 8 = 0.35; b 0.3 * 0.9 + 0.2 = 0.47;
    # c 0.3 * 0.2 + 0.05 = 0.11.
    assert [prefix[0] for prefix in cache.evict(12)] == list("bbbbbbbbaacc")


def test_session_past_its_time_to_live_evicted_before_all_others() -> None:
    cache = Cache("saga", 10, returns=returns_after({"other": [8.5] * 50, "human": [200.0] * 50}))
    cache.run("h", hashes_of("hhhhhh"), HUMAN, served_s=0.0)
    pause(cache, "t", 0.5, 1)
    cache.at(10.5)
    cache.rescore()
    # The human has been away longer and has more blocks, but may take minutes.
    assert cache.priority("t") == (PriorityClass.LIVE, PAST_TTL)
    assert cache.priority("hhhhhh")[1] > PAST_TTL
    assert cache.evict(1) == ["t"]


def test_closed_session_evicted_before_one_past_its_time() -> None:
    cache = Cache("saga", 100)
    expired, closed = pause(cache, "a", 0.0, 1), pause(cache, "b", 0.0, 1)
    cache.runtime.session_closed(closed)
    cache.at(301.0)
    scores = map(cache.eviction.session_priority, (closed, expired))
    assert list(scores) == [-3.0, PAST_TTL]


def test_shared_node_has_its_best_users_priority() -> None:
    cache = Cache("saga", 100)
    first, second = (cache.session(f"r{n}", hashes_of("ss" + n)) for n in "12")
    first.retention_priority, second.retention_priority = -0.75, -0.25
    assert cache.priority("ss") == (PriorityClass.LIVE, -0.25)
