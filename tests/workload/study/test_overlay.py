"""Overlays of sessions: their events, working sets, reuse and holding times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workload.study.naive import BLOCK_TOKENS, session_of, sessions_like_agents

from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn
from holdfast.workload.study.load import HOLD_S, Load, LoadMeter
from holdfast.workload.study.overlay import Overlay, OverlayEvent, ServiceTime
from holdfast.workload.study.reuses import Reuses
from holdfast.workload.study.sampling import BlockSampler, hashes_of
from holdfast.workload.study.steps import SteppedSession, Stepper
from holdfast.workload.study.working_set import WorkingSetMeter

SERVICE = ServiceTime(prompt_s_per_token=0.1, output_s_per_token=1.0)


def turn(gap_s: float, *block_ids: int, output_tokens: int = 2) -> Turn:
    return Turn(gap_s, len(block_ids) * BLOCK_TOKENS, output_tokens, block_ids)


def stepped(sessions: list[Session]) -> list[SteppedSession]:
    stepper = Stepper()
    return [stepper.follow(session) for session in sessions]


def events_of(overlay: Overlay, families: list[list[SteppedSession]]) -> list[OverlayEvent]:
    found = [event for family in families for event in overlay.add(family)]
    return [*found, *overlay.finish()]


def told(events: list[OverlayEvent]) -> list[tuple[float, int, int | None]]:
    return [(event.at_s, event.session.index, event.turn_index) for event in events]


def test_next_session_starts_when_one_ends() -> None:
    sessions = stepped(
        [
            session_of("a", turn(0, 1), turn(5, 1, 2)),
            session_of("b", turn(0, 3)),
            session_of("c", turn(0, 4)),
        ]
    )
    # A prompt block takes 1 s, an answer 2 s: `a` runs 0-3 s, pauses for 5 s, runs 8-11 s.
    expected = [(0, 0, 0), (0, 1, 0), (3, 1, None), (3, 2, 0), (6, 2, None), (8, 0, 1)]
    overlay = Overlay(2, SERVICE)
    events = events_of(overlay, [[session] for session in sessions])
    assert told(events) == [*expected, (11, 0, None)]
    assert [event.end_s for event in events if event.turn_index is not None] == [3, 3, 6, 11]
    assert overlay.slot_s == 11 + 3 + 3


def test_sub_agent_starts_at_end_of_calling_turn() -> None:
    sessions = stepped(
        [
            session_of("main", turn(0, 1), turn(4, 1, 2)),
            session_of("sub", turn(0, 3), turn(9, 3, 4), parent="main", at=0),
            session_of("unknown", turn(0, 5), parent="main"),
            session_of("next", turn(0, 6)),
        ]
    )
    events = events_of(Overlay(1, SERVICE), [sessions[:3], sessions[3:]])
    starts = {index: at_s for at_s, index, turn_index in told(events) if turn_index == 0}
    assert starts == {0: 0, 2: 0, 1: 3, 3: 18}


def test_gaps_are_cut_to_the_cap() -> None:
    sessions = stepped([session_of("a", turn(0, 1), turn(500, 1, 2))])
    events = events_of(Overlay(1, SERVICE, gap_cap_s=7), [sessions])
    assert told(events)[1] == (10, 0, 1)


def test_recorded_arrivals_kept_and_checked() -> None:
    def arriving(*starts_s: float | None) -> list[list[SteppedSession]]:
        return [
            [session]
            for session in stepped(
                [
                    Session(f"s{index}", BLOCK_TOKENS, (turn(0, index),), "test", start_s=start_s)
                    for index, start_s in enumerate(starts_s)
                ]
            )
        ]

    events = events_of(Overlay(None, SERVICE), arriving(100.0, 101.0, 150.0))
    assert [at_s for at_s, _, turn_index in told(events) if turn_index == 0] == [0, 1, 50]
    for wrong in ((0.0, None), (5.0, 1.0)):
        with pytest.raises(ConfigError, match="arriv"):
            events_of(Overlay(None, SERVICE), arriving(*wrong))


@given(sessions_like_agents(), st.integers(1, 4))
def test_concurrency_bounded_and_every_turn_sent_once(
    sessions: list[Session], concurrency: int
) -> None:
    events = events_of(Overlay(concurrency, SERVICE), [[each] for each in stepped(sessions)])
    live: set[int] = set()
    times = [event.at_s for event in events]
    assert times == sorted(times)
    for event in events:
        if event.turn_index is None:
            live.remove(event.session.index)
        live |= {event.session.index} if event.turn_index == 0 else set()
        assert len(live) <= concurrency
    requests = [event for event in events if event.turn_index is not None]
    assert len(requests) == sum(len(session.turns) for session in sessions)


@given(sessions_like_agents(), st.integers(1, 4))
def test_working_set_equals_naive_count(sessions: list[Session], concurrency: int) -> None:
    events = events_of(Overlay(concurrency, SERVICE), [[each] for each in stepped(sessions)])
    meter = WorkingSetMeter()
    live: dict[int, Turn] = {}
    sizes = []
    for event in events:
        meter.take(event)
        if event.turn_index is None:
            del live[event.session.index]
        else:
            live[event.session.index] = sessions[event.session.index].turns[event.turn_index]
        distinct = {block for turn in live.values() for block in turn.block_ids}
        tails = sum(
            turn.prompt_tokens + turn.output_tokens - len(turn.block_ids) * BLOCK_TOKENS
            for turn in live.values()
        )
        sizes.append(len(distinct) * BLOCK_TOKENS + tails)
    end_s = events[-1].at_s
    found = meter.result(0.0, end_s)
    assert found.peak_tokens == max(sizes)
    ends = [event.at_s for event in events[1:]] + [end_s]
    lasted_s = [end - event.at_s for event, end in zip(events, ends, strict=True)]
    if end_s > 0:
        weighted = sum(size * lasted for size, lasted in zip(sizes, lasted_s, strict=True))
        assert found.tokens.mean == pytest.approx(weighted / end_s)


@given(sessions_like_agents(), st.integers(1, 4))
def test_reuse_and_holding_equal_naive_timers(sessions: list[Session], concurrency: int) -> None:
    events = events_of(Overlay(concurrency, SERVICE), [[each] for each in stepped(sessions)])
    (sample,) = BlockSampler().samples()
    holds = np.array([0.0, 0.5, 3.0, 20.0, 1e6])
    reuses = Reuses(sample, holds.tolist())
    last: dict[int, tuple[float, int]] = {}
    ages: list[tuple[float, bool]] = []
    for event in events:
        if event.turn_index is None:
            reuses.close(event)
            continue
        step = event.session.steps[event.turn_index]
        reuses.request(event, event.turn_index, hashes_of(step.added))
        turn = sessions[event.session.index].turns[event.turn_index]
        for block in turn.block_ids:
            if block in last:
                end_s, sender = last[block]
                age_s = max(0.0, event.at_s - end_s)
                ages.append((age_s, sender == event.session.index))
            last[block] = (event.end_s, event.session.index)
    end_s = events[-1].at_s
    unused_s = [max(0.0, end_s - touched_s) for touched_s, _ in last.values()]
    for own_only in (False, True):
        chosen = [age_s for age_s, is_own in ages if is_own or not own_only]
        kept = [BLOCK_TOKENS * sum(age_s <= hold for age_s in chosen) for hold in holds]
        assert reuses.kept_tokens(own_only=own_only).tolist() == kept
        assert reuses.reused_tokens(own_only=own_only) == kept[-1]
    held = [
        BLOCK_TOKENS * sum(min(age_s, hold) for age_s in [*(age for age, _ in ages), *unused_s])
        for hold in holds
    ]
    assert reuses.held_token_s(end_s) == pytest.approx(held)
    assert reuses.distinct_tokens() == BLOCK_TOKENS * len(last)


def load_of(*sessions: Session, concurrency: int = 1) -> Load:
    meter = LoadMeter(Overlay(concurrency, SERVICE), BlockSampler())
    for each in stepped(list(sessions)):
        meter.add([each])
    return meter.finish(concurrency)


def test_holding_for_the_gap_keeps_all_own_reuse() -> None:
    # One block of ten tokens is reused after 10 s, in a run of 3 + 10 + 2 s.
    holding = load_of(session_of("a", turn(0, 1), turn(10, 1))).holding
    assert holding is not None
    kept = dict(zip(HOLD_S, holding.kept_share, strict=True))
    assert (kept[1.0], kept[10.0]) == (0.0, 1.0)
    assert kept == dict(zip(HOLD_S, holding.kept_own_share, strict=True))
    held = dict(zip(HOLD_S, holding.held_tokens, strict=True))
    assert held[1.0] == pytest.approx(10 * 1.0 / 15)
    assert held[10.0] == held[1000.0] == pytest.approx(10 * 10.0 / 15)


def test_no_reuse_means_no_cliff_and_no_holding() -> None:
    load = load_of(session_of("a", turn(0, 1)), session_of("b", turn(0, 2)))
    assert (load.cliff, load.holding) == (None, None)
    assert set(load.cache.hit_ratio) == {0.0}


def test_invalid_options_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Overlay(0, SERVICE)
    with pytest.raises(ConfigError, match="expected seconds"):
        ServiceTime(-1.0, 0.0)
    for rate in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="sample rate"):
            BlockSampler(rate)
    with pytest.raises(ConfigError, match="at least 64"):
        BlockSampler(max_blocks=63)
