"""Figures of a window: what counts, what still waits, what is in flight."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.censored import censored_distribution
from holdfast.core.results import Counters, Distribution, RunResult, SessionRecord, TurnRecord
from holdfast.core.run_summary import summarize_run
from holdfast.core.slo import Slo
from holdfast.core.window import Window
from holdfast.errors import ConfigError

WINDOW = Window(100.0, 50.0)


def turn(session_id: str, sent_s: float, first_s: float | None, last_s: float | None) -> TurnRecord:
    return TurnRecord(
        session_id=session_id,
        turn_index=0,
        sent_s=sent_s,
        first_token_s=first_s,
        last_token_s=last_s,
        prompt_tokens=100,
        appended_tokens=40,
        first_seen_tokens=30,
        output_tokens=11,
        cached_tokens=None if first_s is None else 60,
        loaded_tokens=None if first_s is None else 20,
    )


def summary(*turns: TurnRecord, sessions: list[SessionRecord], **changes: Any) -> RunResult:
    return summarize_run(
        turns,
        sessions,
        policy="holdfast",
        seed=0,
        concurrency=2,
        makespan_s=150.0,
        partial=False,
        counters=Counters(kv_tokens=400),
        window=WINDOW,
        num_output_tokens=500,
        **changes,
    )


BEFORE = turn("a", 90.0, 99.0, 110.0)
INSIDE = turn("a", 120.0, 122.0, 132.0)
WAITING = turn("b", 140.0, None, None)
AFTER_END = turn("c", 145.0, 151.0, 152.0)
SESSIONS = [SessionRecord("a", 0.0, 132.0, True), SessionRecord("b", 140.0, 150.0, False)]


def test_turns_sent_in_the_window_count() -> None:
    run = summary(BEFORE, INSIDE, WAITING, sessions=SESSIONS)
    assert (run.window_start_s, run.window_s, run.makespan_s) == (100.0, 50.0, 50.0)
    assert (run.num_turns, run.prompt_tokens, run.output_tokens) == (1, 100, 11)
    assert run.token_hit_ratio == 0.6
    assert (run.gpu_hit_ratio, run.tier_hit_ratio) == (0.4, 0.2)
    assert run.session_llm_time_s is None
    assert run.output_tokens_per_s == 10.0


def test_goodput_counts_what_ends_in_the_window() -> None:
    run = summary(BEFORE, INSIDE, WAITING, sessions=SESSIONS)
    assert run.goodput_tokens_per_s == 2 * (40 + 11) / 50.0
    # The first token of `BEFORE` came before the window.
    assert run.prompt_tokens_per_s == 100 / 50.0


def test_turn_that_waits_at_the_end_counts_by_its_age() -> None:
    run = summary(INSIDE, WAITING, sessions=SESSIONS)
    assert (run.num_waiting, run.longest_wait_s) == (1, 10.0)
    assert run.ttft_s is not None
    assert (run.ttft_s.p50, run.ttft_s.p99, run.ttft_s.mean) == (2.0, 10.0, 6.0)


def test_first_token_after_the_end_counts_as_waiting() -> None:
    assert summary(AFTER_END, sessions=SESSIONS).num_waiting == 1


def test_in_flight_and_working_set_are_means_over_time() -> None:
    run = summary(BEFORE, INSIDE, WAITING, sessions=SESSIONS)
    # 10 s of `BEFORE`, 12 s of `INSIDE` and 10 s of `WAITING` within 50 s.
    assert run.mean_in_flight == pytest.approx(32 / 50)
    # Session a holds 100 tokens for 32 s, b for 10 s; the cache holds 400.
    assert run.working_set_ratio == pytest.approx(100 * 42 / 50 / 400)


def test_objective_counts_waits_beyond_it_as_missed() -> None:
    slow = turn("a", 101.0, 111.0, 121.0)
    slo = Slo(ttft_s=5.0)
    run = summary(INSIDE, slow, WAITING, sessions=SESSIONS, slo=slo)
    assert run.slo_share == pytest.approx(1 / 3)
    assert run.slo_output_tokens_per_s == 11 / 50.0
    assert Slo(itl_s=1.0).is_met(INSIDE)
    assert not Slo(itl_s=0.5).is_met(INSIDE)


def test_percentiles_by_kaplan_meier_worked_by_hand() -> None:
    # Ends at 1, 3, 4; still open at 2 and 5. S = 4/5, then 4/5 * 2/3, then 4/15: half is past at 4.
    found = censored_distribution([1.0, 3.0, 4.0], [2.0, 5.0])
    assert found is not None
    assert found.p50 == 4.0
    assert found.p99 == 5.0
    assert found.mean == 3.0


def test_all_open_durations_are_a_lower_bound() -> None:
    found = censored_distribution([], [2.0, 6.0])
    assert found is not None
    assert (found.p50, found.p99) == (6.0, 6.0)
    assert censored_distribution([], []) is None


@given(st.lists(st.floats(0.0, 1e6), min_size=1), st.lists(st.floats(0.0, 1e6)))
def test_percentiles_rise_and_stay_in_range(ended_s: list[float], open_s: list[float]) -> None:
    found = censored_distribution(ended_s, open_s)
    assert found is not None
    assert found.p90 is not None
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= max(*ended_s, *open_s, 0.0)


@given(st.lists(st.floats(0.0, 100.0), min_size=3), st.floats(0.0, 100.0))
def test_longer_waits_never_shorten_percentiles(ended_s: list[float], waited_s: float) -> None:
    sooner = censored_distribution(ended_s, [waited_s])
    later = censored_distribution(ended_s, [waited_s + 10.0])
    assert sooner is not None
    assert later is not None
    assert later.p50 >= sooner.p50
    assert later.p99 >= sooner.p99


@pytest.mark.parametrize(("start_s", "duration_s"), [(-1, 1), (math.inf, 1), (0, 0), (0, math.nan)])
def test_impossible_windows_are_refused(start_s: float, duration_s: float) -> None:
    with pytest.raises(ConfigError):
        Window(start_s, duration_s)


def test_whole_run_has_no_window_figures() -> None:
    run = summarize_run(
        [INSIDE], SESSIONS, policy="p", seed=0, concurrency=1, makespan_s=150.0, partial=False
    )
    assert (run.window_s, run.num_waiting, run.slo_share) == (None, None, None)
    assert run.ttft_s == Distribution(2.0, 2.0, 2.0, 2.0, 2.0)
