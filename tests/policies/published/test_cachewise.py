"""CacheWise: fewest missing blocks first, longest expected residual evicted first.

Gaps are learned on a grid of four bins an octave, evenly spread in a bin: [1, 1.189207) is one,
[64, 76.1093) another. The mean is cut at the 95 % quantile of the residual.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.policies.host import HUMAN, TOOL, Cache, hashes_of, requests, returns_after

from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass
from holdfast.predict.features import GapKind

SECONDS: Mapping[GapKind, list[float]] = {"other": [1.1] * 50, "human": [70.0] * 50}


def residual_s(cache: Cache, session: Session, away_s: float) -> float:
    cache.at(session.paused_at_s + away_s)
    return -cache.eviction.session_priority(session)


def test_turn_with_fewest_missing_blocks_first() -> None:
    cache = Cache("cachewise", 100)
    cache.run("a", hashes_of("aaaa"))
    cache.run("b", hashes_of("bb"))
    waiting = [
        cache.arrive("a2", hashes_of("aaaa111")),  # misses 3
        cache.arrive("c", hashes_of("cc")),  # misses 2
        cache.arrive("b2", hashes_of("bb1")),  # misses 1
    ]
    assert requests(cache.admit(waiting).admitted) == ["b2", "c", "a2"]


def test_long_prompt_with_few_missing_blocks_passes_a_short_one() -> None:
    """The paper counts missing blocks; its released fork counts blocks found."""
    cache = Cache("cachewise", 100)
    cache.run("a", hashes_of("a" * 20))
    waiting = [
        cache.arrive("a2", hashes_of("a" * 20 + "1234")),  # finds 20, misses 4
        cache.arrive("b", hashes_of("bbb")),  # finds none, misses 3
    ]
    assert requests(cache.admit(waiting).admitted) == ["b", "a2"]


def test_turns_that_miss_as_much_go_by_arrival() -> None:
    cache = Cache("cachewise", 100)
    waiting = [cache.arrive(name, hashes_of(name * 2)) for name in "cab"]
    assert requests(cache.admit(waiting).admitted) == ["c", "a", "b"]


def test_nothing_is_held_back_when_blocks_run_short() -> None:
    cache = Cache("cachewise", 4)
    waiting = [cache.arrive(name, hashes_of(name * 3)) for name in "ab"]
    assert requests(cache.admit(waiting).admitted) == ["a", "b"]


def test_residual_is_the_mean_of_the_gaps_that_are_longer() -> None:
    cache = Cache("cachewise", 100, returns=returns_after(SECONDS))
    session = cache.session("a", hashes_of("a"), TOOL)
    # The gap is even on [1, 1.189207), its 95 % quantile 1 + 0.95 * 0.189207 = 1.179747.
    # E[min(T, 1.179747)] = 1 + 0.189207 * (0.95^2 / 2 + 0.05 * 0.95) = 1 + 0.189207 * 0.49875
    assert residual_s(cache, session, 0.0) == pytest.approx(1.094367, abs=1e-5)
    # At 0.5 s none could have ended: 0.5 s less.
    assert residual_s(cache, session, 0.5) == pytest.approx(0.594367, abs=1e-5)
    # At the bin's middle, 1.094604, half are left, even on the upper half of the bin:
    # 0.094604 * 0.49875
    assert residual_s(cache, session, 1.0946035) == pytest.approx(0.047183, abs=1e-5)


def test_residual_grows_with_the_pause_for_mixed_gaps() -> None:
    """Most gaps take a second, a few a minute: once past two seconds it is one of the few."""
    cache = Cache("cachewise", 100, returns=returns_after({"other": [1.1] * 45 + [70.0] * 5}))
    session = cache.session("a", hashes_of("a"), TOOL)
    # Nine tenths end by 1.19 s; the 95 % quantile lies halfway through [64, 76.1093): 70.05465.
    # Of the last tenth half is cut there; the other half lies between 64 and 70.05465:
    # 0.9 * (1 + 0.189207 / 2) + 0.05 * 67.027325 + 0.05 * 70.05465 = 0.985143 + 6.854099
    assert residual_s(cache, session, 0.0) == pytest.approx(7.839242, abs=1e-3)
    # All that are left are even on [64, 76.1093): 64 - 2 + 12.1093 * 0.49875
    assert residual_s(cache, session, 2.0) == pytest.approx(68.0395, abs=1e-3)


def test_before_any_gap_residual_grows_with_the_time_away() -> None:
    cache = Cache("cachewise", 100)
    tool = cache.session("a", hashes_of("a"), TOOL)
    # Pareto with index 0.8 from w = away + 1 s, cut at its 95 % quantile w * (20^1.25 - 1):
    # mean w * (20^0.25 - 1) / 0.2 = w * (2.114743 - 1) * 5 = 5.573713 w
    assert residual_s(cache, tool, 0.0) == pytest.approx(5.573713, abs=1e-5)
    assert residual_s(cache, tool, 3.0) == pytest.approx(4 * 5.573713, abs=1e-4)


def test_session_in_the_engine_is_zero_seconds_away() -> None:
    cache = Cache("cachewise", 100, returns=returns_after(SECONDS))
    turn = cache.arrive("a", hashes_of("a"))
    assert cache.eviction.session_priority(turn.session) == 0.0


def test_longest_expected_residual_evicted_first() -> None:
    cache = Cache("cachewise", 9, returns=returns_after({"other": [1.1] * 45 + [70.0] * 5}))
    for at_s, name in ((0.0, "a"), (4.0, "b"), (4.5, "c")):
        cache.at(at_s)
        cache.run(name, hashes_of(name * 3), served_s=0.0)
    cache.at(5.0)
    cache.rescore()
    # a has been away for 5 s and will for a minute; b and c for 1 and 0.5 s. At 1 s the residual
    # of the mix is as at 0 s less what has passed: b is back before c.
    assert cache.evict(9) == ["aaa", "aa", "a", "ccc", "cc", "c", "bbb", "bb", "b"]


def test_human_away_evicted_before_any_tool() -> None:
    cache = Cache(
        "cachewise", 6, returns=returns_after({"human": [1.1] * 50, "other": [70.0] * 50})
    )
    cache.run("human", hashes_of("hhh"), HUMAN)
    cache.run("tool", hashes_of("ttt"), TOOL)
    cache.rescore()
    # The human is back in one second, the tool in a minute: the class decides all the same.
    assert cache.priority("hhh")[0] == PriorityClass.AWAY
    assert cache.priority("ttt")[0] == PriorityClass.LIVE
    assert cache.evict(3) == ["hhh", "hh", "h"]


def test_shared_blocks_count_for_the_user_back_first() -> None:
    cache = Cache("cachewise", 100)
    soon, late = (cache.session(f"r{n}", hashes_of("ss" + n)) for n in "12")
    soon.retention_priority, late.retention_priority = -2.0, -50.0
    assert cache.priority("ss") == (PriorityClass.LIVE, -2.0)
    assert cache.priority("ss2") == (PriorityClass.LIVE, -50.0)


def test_closed_session_counts_as_no_user() -> None:
    cache = Cache("cachewise", 100)
    session = cache.session("a", hashes_of("a"))
    cache.runtime.session_closed(session)
    assert cache.priority("a") == (PriorityClass.UNOWNED, 0.0)


def test_idle_sessions_rescored_every_third_step() -> None:
    cache = Cache("cachewise", 100)
    session = cache.session("a", hashes_of("a"))  # runs in the first step
    before = session.retention_priority
    cache.at(50.0)
    cache.runtime.step()
    cache.runtime.step()
    assert session.retention_priority == before
    cache.runtime.step()
    # w = 50 + 1 s: 51 * 5.573713
    assert session.retention_priority == pytest.approx(-284.2594, abs=1e-3)


@pytest.mark.parametrize(("settings", "steps"), [("", 3), (":rebuild_steps=5", 5)])
def test_idle_sessions_are_rescored_every_n_rebuild_steps(settings: str, steps: int) -> None:
    cache = Cache(f"cachewise{settings}", 100, returns=returns_after({"other": [70.0] * 50}))
    session = cache.session("a", hashes_of("a"))
    cache.step(steps)
    cache.step()
    cache.at(10.0)
    before = session.retention_priority
    for _ in range(steps - 1):
        cache.step()
        assert session.retention_priority == before
    cache.step()
    assert session.retention_priority > before  # ten seconds less are left
