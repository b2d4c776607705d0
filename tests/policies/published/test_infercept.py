"""InferCept: the waste of keeping against the waste of discarding, with hand-worked numbers.

A block has 16 tokens, a token takes 0.1 s. Waste is in token-seconds; a chunk has 384 tokens less
one a running request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from tests.policies.host import HUMAN, Cache, hashes_of, requests

from holdfast.core.offload_port import NoOffload
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import PriorityClass
from holdfast.policies.published.infercept import InferCept


def path(name: str, num_blocks: int) -> list[bytes]:
    return [f"{name}{n}".encode() for n in range(num_blocks)]


def policy_of(cache: Cache) -> InferCept:
    assert isinstance(cache.eviction, InferCept)
    return cache.eviction


def pause(cache: Cache, name: str, num_blocks: int, gaps_s: Sequence[float]) -> Session:
    """A session of that length, after pauses of those lengths."""
    session = cache.session(name, path(name, num_blocks))
    for number, gap_s in enumerate(gaps_s):
        cache.at(cache.now_s + gap_s)
        session = cache.session(f"{name}{number}", path(name, num_blocks))
    return session


def start(cache: Cache, name: str, num_blocks: int) -> Turn:
    """A turn that runs on."""
    turn = cache.arrive(name, path(name, num_blocks))
    cache.start(turn)
    return turn


def test_waste_of_keeping_is_pause_times_tokens() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 8, [2.0, 4.0])
    # (2 + 4) / 2 s * 8 * 16 tokens
    assert policy_of(cache)._waste_of_keeping(session) == 384.0


def test_pause_is_the_mean_of_the_sessions_last_five() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 1, [100.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    # (1 + 2 + 3 + 4 + 5) / 5 s * 16 tokens
    assert policy_of(cache)._waste_of_keeping(session) == 48.0


def test_session_without_pauses_goes_by_those_of_all() -> None:
    cache = Cache("infercept", 100)
    pause(cache, "x", 8, [2.0, 4.0])
    new = pause(cache, "y", 10, [])
    assert policy_of(cache)._waste_of_keeping(new) == 3.0 * 160


def test_one_chunk_wastes_its_time_times_its_tokens() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 8, [])
    # 128 tokens fit one chunk of 384: n = 0, and the last chunk takes 12.8 s for 128 tokens.
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(12.8 * 128)


def test_chunks_of_a_long_context_waste_those_before_them() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 50, [])
    # 800 tokens in chunks of 384: n = ceil(800 / 384) - 1 = 2, a chunk takes 38.4 s.
    # f n (n + 1) / 2 c = 38.4 * 3 * 384 = 44236.8; the last 32 tokens take 3.2 s * 32 = 102.4.
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(44339.2)


def test_running_requests_shorten_chunks_and_wait_for_them() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 50, [])
    start(cache, "r", 10)
    # One request of 160 tokens runs: chunks of 383, n = 2, a step of 384 takes 38.4 s.
    # Own: 38.4 * 3 * 383 = 44121.6. Others: 38.3 * 2 * 160 = 12256.
    # The last 34 tokens: 3.4 s * (160 + 34) = 659.6.
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(57037.2)


def test_ended_request_no_longer_waits() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 50, [])
    cache.end(start(cache, "r", 10))
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(44339.2)


def test_whole_chunks_leave_no_last_one() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 48, [])
    # 768 tokens are two chunks: n = 1, own 38.4 * 1 * 384, and 768 mod 384 = 0 are left.
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(14745.6)


def test_chunk_and_number_of_gaps_are_settings() -> None:
    cache = Cache("infercept:chunk_tokens=64:recent_gaps=1", 100)
    session = pause(cache, "x", 8, [9.0, 2.0])
    assert policy_of(cache)._waste_of_keeping(session) == 2.0 * 128
    # 128 tokens in chunks of 64: n = 1, own 6.4 s * 1 * 64.
    assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(409.6)


@pytest.mark.parametrize(("gap_s", "is_kept"), [(12.75, True), (12.875, False)])
def test_short_context_kept_up_to_its_recompute_time(gap_s: float, is_kept: bool) -> None:
    """One chunk of 128 tokens: both wastes are equal at 12.8 s."""
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 8, [gap_s])
    assert policy_of(cache).retains(session) == is_kept
    assert session.has_reservation == is_kept


@pytest.mark.parametrize(("gap_s", "is_kept"), [(55.25, True), (55.75, False)])
def test_long_context_discarded_before_its_recompute_time(gap_s: float, is_kept: bool) -> None:
    """800 tokens take 80 s, but are not all there for so long: 44339.2 / 800 = 55.424 s."""
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 50, [gap_s])
    assert policy_of(cache).retains(session) == is_kept


@pytest.mark.parametrize(("gap_s", "is_kept"), [(71.0, True), (71.5, False)])
def test_context_kept_longer_while_others_run(gap_s: float, is_kept: bool) -> None:
    """With 160 tokens running: 57037.2 / 800 = 71.297 s."""
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 50, [gap_s])
    start(cache, "r", 10)
    assert policy_of(cache).retains(session) == is_kept


@dataclass
class FullTier(NoOffload):
    """A tier that holds everything."""

    block_s: float

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        del guess
        return len(hashes) - first

    def load_s(self, num_blocks: float) -> float:
        return num_blocks * self.block_s


def test_copy_wastes_its_own_time_times_tokens() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 8, [])
    cache.runtime.tier = FullTier(0.25)
    # 8 blocks * 0.25 s * 128 tokens
    assert policy_of(cache)._waste_of_discarding(session) == 256.0


@pytest.mark.parametrize(("gap_s", "is_kept"), [(1.875, True), (2.125, False)])
def test_stored_context_kept_up_to_its_load_time(gap_s: float, is_kept: bool) -> None:
    """8 blocks * 0.25 s = 2 s."""
    cache = Cache("infercept", 100)
    cache.runtime.tier = FullTier(0.25)
    assert policy_of(cache).retains(pause(cache, "x", 8, [gap_s])) == is_kept


def test_copy_slower_than_computing_changes_nothing() -> None:
    cache = Cache("infercept", 100)
    session = pause(cache, "x", 8, [])
    for block_s in (1.75, math.inf):  # a block is computed in 1.6 s
        cache.runtime.tier = FullTier(block_s)
        assert policy_of(cache)._waste_of_discarding(session) == pytest.approx(1638.4)


def test_nothing_kept_before_any_pause_has_ended() -> None:
    cache = Cache("infercept", 100)
    assert not policy_of(cache).retains(pause(cache, "x", 8, []))


def test_kept_blocks_evicted_last_and_others_by_recency() -> None:
    cache = Cache("infercept", 9)
    for name, gap_s in (("k", 1.0), ("d", 100.0), ("e", 100.0)):
        cache.run(name, hashes_of(name * 3), HUMAN, served_s=0.0)
        cache.at(cache.now_s + gap_s)
        cache.run(name + "2", hashes_of(name * 3), HUMAN, served_s=0.0)
    # Three blocks are recomputed in 4.8 s.
    assert cache.priority("kkk") == (PriorityClass.PINNED, 0.0)
    assert cache.priority("ddd") == (PriorityClass.LIVE, 0.0)
    assert cache.evict(9) == ["ddd", "dd", "d", "eee", "ee", "e", "kkk", "kk", "k"]


def test_turns_wait_in_order_while_kept_context_leaves_too_few() -> None:
    cache = Cache("infercept", 12)
    pause(cache, "k", 8, [1.0])
    waiting = [cache.arrive("big", path("b", 5)), cache.arrive("small", path("s", 2))]
    assert not cache.admit(waiting).admitted  # four blocks are left; no later turn passes
    assert requests(cache.admit(waiting[1:]).admitted) == ["small"]
    assert requests(cache.admit(waiting, num_running=0).admitted) == ["big"]
