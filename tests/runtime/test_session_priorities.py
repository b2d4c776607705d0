"""The dirty set: sessions are rescored once a step, and questions change nothing."""

from __future__ import annotations

import math

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.session import Session
from holdfast.errors import PolicyError


def paused(cache: Cache, prompt: str) -> Session:
    cache.run(prompt, hashes_of(prompt))
    *_, session = cache.runtime.sessions
    return session


def test_paused_session_rescored_at_the_next_step() -> None:
    cache = Cache("cachewise", 24)
    session = paused(cache, "abcd")
    assert session.retention_priority == 0.0, "it was busy when it was scored last"
    cache.runtime.step()
    assert session.retention_priority < 0.0


def test_ended_session_is_not_rescored() -> None:
    cache = Cache("cachewise", 24)
    session = paused(cache, "abcd")
    cache.runtime.session_closed(session)
    cache.runtime.step()
    assert session.retention_priority == 0.0


def test_forgotten_session_leaves_the_dirty_set() -> None:
    cache = Cache("holdfast", 24)
    session = paused(cache, "abcd")
    cache.runtime._forget(session)
    cache.runtime.step()
    assert session not in cache.runtime.idle


def test_priority_question_stores_nothing() -> None:
    cache = Cache("holdfast", 24)
    session = paused(cache, "abcd")
    cache.runtime.step()
    before = session.retention_priority, session.stale_at_s
    cache.runtime.tick(cache.now_s + 1_000.0)
    assert cache.runtime.priority_of(session.tail)[1] == before[0]
    assert (session.retention_priority, session.stale_at_s) == before


def test_stale_priority_rescored_only_as_asked() -> None:
    cache = Cache("holdfast", 24)
    session = paused(cache, "abcd")
    cache.runtime.step()
    before = session.retention_priority
    cache.runtime.tick(cache.now_s + 1_000.0)
    cache.runtime.step(num_stale=0)
    assert session.retention_priority == before
    cache.runtime.step(num_stale=1)
    assert 0.0 < session.retention_priority < before


def test_nan_priority_is_an_error_that_names_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache("holdfast", 24)
    eviction = cache.runtime.policies.eviction
    paused(cache, "abcd")
    monkeypatch.setattr(type(eviction), "session_priority", lambda *_: math.nan)
    with pytest.raises(PolicyError, match="'holdfast' gives NaN"):
        cache.runtime.step()


def test_session_without_blocks_set_apart_and_released() -> None:
    cache = Cache("holdfast", 8)
    session = paused(cache, "abcd")
    assert session.has_reservation
    cache.run("large", hashes_of("12345678"))
    cache.runtime._priorities.mark(session)
    cache.runtime.step()
    assert session not in cache.runtime.idle
    assert not session.has_reservation
    assert cache.runtime.idle.soonest_back(lambda _: 1.0, 1) == [session]
