"""Figures computed from the records of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast.core.results import (
    Counters,
    Distribution,
    RunDocument,
    RunResult,
    SessionRecord,
    TurnRecord,
    ratio,
)
from holdfast.core.run_summary import summarize_run

CONTRACT_KEYS = {
    *("policy", "seed", "concurrency", "num_sessions", "num_turns", "kv_tokens"),
    *("prompt_tokens", "output_tokens", "token_hit_ratio", "evicted_blocks"),
    *("recomputed_tokens", "loaded_tokens", "session_llm_time_s", "session_time_s", "ttft_s"),
    *("request_latency_s", "makespan_s", "goodput_tokens_per_s", "prompt_tokens_per_s"),
    *("preemptions", "engine_steps", "policy_cpu_s", "scheduler_cpu_s", "fallbacks"),
    *("disk_loaded_tokens", "prefetches"),
    *("num_errors", "partial", "host_tokens", "disk_tokens"),
    *("peak_live_sessions", "mean_live_sessions", "all_live_s", "all_live_goodput_tokens_per_s"),
    *("session_ends", "window_start_s", "window_s", "output_tokens_per_s", "itl_s"),
    *("mean_in_flight", "working_set_ratio", "gpu_hit_ratio", "tier_hit_ratio", "num_waiting"),
    *("longest_wait_s", "slo_share", "slo_output_tokens_per_s", "uncovered_share"),
    *("session_llm_time_bound_s",),
}


def turn(session_id: str = "a", index: int = 0, sent_s: float = 0.0, **fields: Any) -> TurnRecord:
    defaults = {
        "first_token_s": sent_s + 1.0,
        "last_token_s": sent_s + 3.0,
        "prompt_tokens": 100,
        "appended_tokens": 40,
        "first_seen_tokens": 30,
        "output_tokens": 10,
    }
    return TurnRecord(session_id, index, sent_s, **defaults | fields)


def summary(
    turns: Sequence[TurnRecord],
    sessions: Sequence[SessionRecord] = (),
    *,
    makespan_s: float = 10.0,
    counters: Counters | None = None,
) -> RunResult:
    return summarize_run(
        turns,
        sessions,
        policy="holdfast",
        seed=1,
        concurrency=2,
        makespan_s=makespan_s,
        partial=False,
        counters=counters,
    )


def test_percentiles_are_interpolated() -> None:
    found = Distribution.from_values([1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert (found.mean, found.p50) == (2.5, 2.5)
    assert found.p99 == pytest.approx(3.97)


def test_no_distribution_without_values() -> None:
    assert Distribution.from_values([]) is None


@pytest.mark.parametrize(("a", "b", "expected"), [(1, 2, 0.5), (1, 0, None), (None, 2, None)])
def test_ratio_without_a_denominator_is_unknown(a: Any, b: Any, expected: Any) -> None:
    assert ratio(a, b) == expected


def test_llm_time_sums_latencies_of_completed_sessions() -> None:
    turns = [turn(), turn(index=1, sent_s=50.0), turn("b", sent_s=7.0)]
    sessions = [SessionRecord("a", 0.0, 53.0, True), SessionRecord("b", 7.0, 10.0, False)]
    result = summary(turns, sessions)
    assert result.session_llm_time_s == Distribution(6.0, 6.0, 6.0, 6.0, 6.0)
    assert result.session_time_s == Distribution(53.0, 53.0, 53.0, 53.0, 53.0)
    assert result.num_sessions == 2


def test_failed_turns_count_as_errors_only() -> None:
    failed = turn(index=1, last_token_s=None, error_kind="stalled", error="late")
    result = summary([turn(), failed])
    assert (result.num_turns, result.num_errors, result.prompt_tokens) == (1, 1, 100)


def test_cancelled_turns_are_no_errors() -> None:
    cut = turn(index=1, last_token_s=None, error_kind="cancelled", error="stopped")
    assert summary([cut]).num_errors == 0


def test_hit_ratio_and_recomputation_come_from_counters() -> None:
    counters = Counters(cache_query_tokens=200, cache_hit_tokens=50)
    result = summary([turn(cached_tokens=0), turn(index=1, cached_tokens=0)], counters=counters)
    assert result.token_hit_ratio == 0.25
    assert result.recomputed_tokens == 200 - 50 - 2 * 30


def test_cached_tokens_of_turns_replace_missing_counters() -> None:
    result = summary([turn(cached_tokens=20), turn(index=1, cached_tokens=60)])
    assert result.token_hit_ratio == 0.4
    assert result.recomputed_tokens == (100 - 20 - 30) + (100 - 60 - 30)


def test_figures_without_counts_are_unknown() -> None:
    result = summary([turn()])
    assert result.token_hit_ratio is None
    assert result.recomputed_tokens is None
    assert result.evicted_blocks is None


def test_goodput_counts_appended_and_output_tokens_per_second() -> None:
    result = summary([turn(), turn(index=1)], makespan_s=10.0)
    assert result.goodput_tokens_per_s == 10.0
    assert result.prompt_tokens_per_s == 20.0


def test_empty_run_has_counts_only() -> None:
    result = summary([], makespan_s=0.0)
    assert result.num_turns == 0
    assert result.ttft_s is None
    assert result.goodput_tokens_per_s is None


def test_document_has_the_keys_of_the_contract() -> None:
    document = json.loads(RunDocument(manifest={"seeds": [1]}, runs=[summary([turn()])]).to_json())
    assert document["schema"] == "holdfast.run/1"
    assert set(document) == {"schema", "manifest", "runs"}
    assert set(document["runs"][0]) == CONTRACT_KEYS
    assert set(document["runs"][0]["ttft_s"]) == {"mean", "p50", "p90", "p95", "p99"}


def test_sessions_live_at_once_are_counted() -> None:
    sessions = [
        SessionRecord("a", 0.0, 4.0, True),
        SessionRecord("b", 1.0, 9.0, True),
        SessionRecord("c", 4.5, 6.0, False),
    ]
    result = summary([], sessions)
    assert (result.concurrency, result.peak_live_sessions) == (2, 2)
    assert result.mean_live_sessions == pytest.approx((4.0 + 8.0 + 1.5) / 10.0)
    assert result.all_live_s == pytest.approx(6.0 - 1.0)


def test_session_that_ends_is_not_live_beside_the_next() -> None:
    sessions = [SessionRecord("a", 0.0, 5.0, True), SessionRecord("b", 5.0, 9.0, True)]
    assert summary([], sessions).peak_live_sessions == 1


def test_all_live_goodput_counts_turns_by_their_share() -> None:
    sessions = [SessionRecord("a", 0.0, 9.0, True), SessionRecord("b", 3.0, 5.0, True)]
    turns = [
        turn("a", sent_s=0.0, last_token_s=4.0),
        turn("b", sent_s=3.0, last_token_s=5.0),
        turn("a", 1, sent_s=6.0, last_token_s=9.0),
    ]
    result = summary(turns, sessions)
    assert result.all_live_goodput_tokens_per_s == pytest.approx((50 / 4 + 50) / 2.0)
    assert result.goodput_tokens_per_s == pytest.approx(150 / 10.0)


def test_run_without_sessions_has_no_live_figures() -> None:
    result = summary([])
    assert (result.peak_live_sessions, result.mean_live_sessions) == (None, None)
    assert (result.all_live_s, result.all_live_goodput_tokens_per_s) == (None, None)
