"""Tests of what a running engine's sessions say about misses."""

from __future__ import annotations

from holdfast.bench.engine_sessions import misses_of
from holdfast.core.miss_record import EvictionRecord
from holdfast.core.seen_state import SeenEngine, SeenMiss, SeenSession, SeenState


def test_a_turn_keeps_all_that_the_engine_says_of_it() -> None:
    evicted = EvictionRecord("tool", 3.0, idle_s=2.5, taken_by=2)
    seen = SeenMiss(
        turn=7,
        prompt_tokens=100,
        cached_tokens=36,
        missed={"evicted": 64},
        lost_s_by={"evicted": 0.25},
        evicted=evicted,
        waited_s=1.5,
        delayed_by="blocks",
        change="system",
    )
    session = SeenSession(number=4, session_id="s", last_misses=[seen])
    engine = SeenEngine(engine=1, cache_tokens=5000)
    (found,) = misses_of([SeenState(engine=engine, sessions=[session])])
    assert (found.session, found.turn, found.session_id) == (4, 7, "s")
    assert (found.engine, found.cache_tokens) == (1, 5000)
    assert (found.prompt_tokens, found.cached_tokens) == (100, 36)
    assert (found.missed, found.lost_s, found.evicted) == (
        {"evicted": 64},
        {"evicted": 0.25},
        evicted,
    )
    assert (found.waited_s, found.delayed_by, found.change) == (1.5, "blocks", "system")


def test_turns_come_by_session_and_turn() -> None:
    turns = [SeenMiss(turn=number) for number in (3, 1, 2)]
    sessions = [SeenSession(number=number, last_misses=turns) for number in (5, 6)]
    found = [(each.session, each.turn) for each in misses_of([SeenState(sessions=sessions)])]
    assert found == [(5, 1), (5, 2), (5, 3), (6, 1), (6, 2), (6, 3)]
