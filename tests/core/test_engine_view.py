"""Figures of an engine from two readings, worked by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from holdfast.core.engine_view import (
    EngineReading,
    EngineView,
    MetricValue,
    down,
    total_view,
    view_of,
)
from holdfast.core.metric_table import METRIC_OF
from holdfast.core.seen_state import SeenEngine, SeenSession, SeenState

URL = "http://engine"


def value(name: str, number: float, **labels: str) -> MetricValue:
    sample = METRIC_OF[name].sample if name.startswith("holdfast_") else name
    return MetricValue(sample, labels, number)


def reading(
    at_s: float, cached: float, missed: Mapping[str, float], evicted: float = 0.0
) -> EngineReading:
    counts = [value("holdfast_missed_tokens", n, reason=reason) for reason, n in missed.items()]
    return EngineReading(
        at_s,
        [
            value("holdfast_cached_tokens", cached),
            value("holdfast_evicted_blocks", evicted, reason="tool"),
            value("holdfast_hit_ratio", 0.25),
            value("holdfast_possible_hit_ratio", 0.5),
            value("holdfast_sessions", 3, state="at_tool"),
            value("vllm:num_requests_waiting", 2, engine="0"),
            value("vllm:num_requests_waiting", 1, engine="1"),
            value("vllm:cache_config_info", 1, num_gpu_blocks="200", block_size="16"),
            value("vllm:kv_cache_usage_perc", 0.25),
            *counts,
        ],
    )


FIRST = reading(10.0, 1000, {"never_seen": 100, "evicted": 50}, evicted=5)
SECOND = reading(14.0, 1060, {"never_seen": 110, "evicted": 80}, evicted=25)


def test_hit_ratio_and_ceiling_are_of_the_interval() -> None:
    view = view_of(URL, FIRST, SECOND)
    # 60 cached, 10 new and 30 evicted tokens since the first reading
    assert view.hit_ratio == pytest.approx(0.6) and view.possible_hit_ratio == pytest.approx(0.9)
    assert view.is_recent and view.missed == {"never_seen": 10, "evicted": 30}
    assert view.evicted_blocks_per_s == 5.0 and view.interval_s == 4.0


def test_an_interval_without_turns_has_the_last_turns_hits() -> None:
    view = view_of(URL, FIRST, FIRST.__class__(14.0, FIRST.metrics))
    assert (view.hit_ratio, view.possible_hit_ratio, view.is_recent) == (0.25, 0.5, False)
    assert view.evicted_blocks_per_s == 0.0


@pytest.mark.parametrize("before", [None, reading(10.0, 9000, {"never_seen": 1})])
def test_first_look_and_restart_have_no_rates(before: EngineReading | None) -> None:
    view = view_of(URL, before, SECOND)
    assert view.evicted_blocks_per_s is None and view.interval_s == 0.0 and not view.is_recent


def test_an_engine_that_never_evicted_evicts_nothing() -> None:
    pages = [[one for one in FIRST.metrics if "evicted_blocks" not in one.name]] * 2
    before, after = (EngineReading(float(n), page) for n, page in enumerate(pages))
    assert view_of(URL, before, after).evicted_blocks_per_s == 0.0


def test_gauges_add_up_over_data_parallel_engines() -> None:
    view = view_of(URL, None, FIRST)
    assert (view.waiting, view.sessions, view.policy) == (3, {"at_tool": 3}, "stock")
    assert (view.capacity_blocks, view.used_blocks, view.reserved_blocks) == (200, 50, None)


def test_the_routes_know_blocks_and_list_waiting_sessions_first() -> None:
    sessions = [
        SeenSession(number=1, state="at_tool", context_blocks=9),
        SeenSession(number=2, state="waiting", context_blocks=1),
        SeenSession(number=3, state="closed"),
        SeenSession(number=4, state="waiting", context_blocks=5),
    ]
    state = SeenState(
        SeenEngine(capacity_blocks=100, free_blocks=40, reserved_blocks=30), sessions, next_after=4
    )
    view = view_of(URL, None, EngineReading(0.0, FIRST.metrics, [state, state]))
    assert (view.capacity_blocks, view.used_blocks, view.reserved_blocks) == (200, 120, 60)
    assert [one.number for one in view.listed] == [4, 4, 2, 2, 1, 1] and view.has_more


def test_the_total_has_the_hits_of_all_tokens_not_a_mean() -> None:
    one = EngineView(url="a", running=1, cached_tokens=90, missed={"evicted": 10.0})
    other = EngineView(url="b", running=2, cached_tokens=0, missed={"never_seen": 100.0})
    total = total_view([one, other, down("c", "gone", None)])
    assert total.hit_ratio == pytest.approx(0.45) and total.possible_hit_ratio == 0.5
    assert total.running == 3 and total.held is None


def test_stock_engines_have_vllms_own_hit_ratio() -> None:
    pages = [
        EngineReading(
            at_s,
            [
                value("vllm:prefix_cache_queries_total", 100 * at_s),
                value("vllm:prefix_cache_hits_total", 70 * at_s),
            ],
        )
        for at_s in (1.0, 2.0)
    ]
    view = view_of(URL, *pages)
    assert view.hit_ratio == pytest.approx(0.7) and view.possible_hit_ratio is None
