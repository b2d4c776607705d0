"""Curves over loads, and their cliffs."""

from __future__ import annotations

import pytest
from tests.report.runs import run_of, runs_of

from holdfast.core.results import RunResult
from holdfast.report.cells import format_cliff
from holdfast.report.curves import Cliff, cliffs, curves
from holdfast.report.metrics import LLM_TIME


def _over_sessions(ratios: dict[int, float | None], policy: str = "holdfast") -> list[RunResult]:
    return [run_of(policy, concurrency=n, token_hit_ratio=hit) for n, hit in ratios.items()]


def _over_cache(ratios: dict[int, float]) -> list[RunResult]:
    return [run_of("holdfast", kv_tokens=kv, token_hit_ratio=hit) for kv, hit in ratios.items()]


def test_panel_follows_one_axis_and_fixes_the_other() -> None:
    runs = [
        run_of("holdfast", llm_s=float(n), concurrency=n, kv_tokens=kv)
        for n in (16, 4)
        for kv in (2048, 1024)
    ]
    panels = curves(runs, LLM_TIME, "concurrency")
    assert [panel.fixed for panel in panels] == [1024, 2048]
    assert [load for load, _ in panels[0].curves[0].points] == [4, 16]
    assert [panel.fixed for panel in curves(runs, LLM_TIME, "kv_tokens")] == [4, 16]


def test_curve_holds_median_and_range_over_seeds() -> None:
    runs = runs_of("holdfast", [3.0, 9.0, 4.0]) + runs_of("holdfast", [1.0], concurrency=2)
    ((_, light), (_, heavy)) = curves(runs, LLM_TIME, "concurrency")[0].curves[0].points
    assert (light.low, light.high) == (1.0, 1.0)
    assert (heavy.median, heavy.low, heavy.high) == (4.0, 3.0, 9.0)


def test_axis_with_one_value_has_no_panel() -> None:
    assert curves([run_of("holdfast"), run_of("vllm-default")], LLM_TIME, "concurrency") == ()


def test_curves_are_in_policy_order() -> None:
    runs = _over_sessions({2: 0.9, 4: 0.8}) + _over_sessions({2: 0.9, 4: 0.8}, "stateless")
    (panel,) = curves(runs, LLM_TIME, "concurrency")
    assert [curve.policy for curve in panel.curves] == ["stateless", "holdfast"]


def test_cliff_over_sessions_is_steepest_doubling() -> None:
    # Per doubling: 4-8 0.01; 8-16 0.58; 16-32 0.34. Half of 0.98 is 0.49.
    (cliff,) = cliffs(_over_sessions({32: 0.05, 8: 0.97, 4: 0.98, 16: 0.39}), "holdfast")
    assert cliff == Cliff("holdfast", "concurrency", 1024, 8, 16, 0.97 - 0.39, 0.98, 16)


def test_cliff_over_cache_size_runs_to_small_sizes() -> None:
    (cliff,) = cliffs(_over_cache({1024: 0.2, 2048: 0.3, 4096: 0.9, 8192: 0.95}), "holdfast")
    assert (cliff.axis, cliff.fixed) == ("kv_tokens", 8)
    assert (cliff.from_load, cliff.to_load, cliff.half_lost_at) == (4096, 2048, 2048)


def test_steepness_independent_of_load_spacing() -> None:
    # 2-32 loses 0.4 over four doublings, 32-40 loses 0.2 over a third of one.
    (cliff,) = cliffs(_over_sessions({2: 0.9, 32: 0.5, 40: 0.3}), "holdfast")
    assert (cliff.from_load, cliff.to_load) == (32, 40)


def test_half_is_lost_only_beyond_the_best_load() -> None:
    (cliff,) = cliffs(_over_sessions({1: 0.1, 2: 0.8, 4: 0.7, 8: 0.6}), "holdfast")
    assert cliff.best_ratio == 0.8
    assert cliff.half_lost_at is None


@pytest.mark.parametrize(
    "ratios",
    [{4: 0.9, 8: 0.1}, {4: 0.9, 8: None, 16: 0.1}, {4: 0.5, 8: 0.5, 16: 0.5}, {4: 0.1, 8: 0.5}],
    ids=["two loads", "two known", "flat", "rising"],
)
def test_too_few_loads_or_no_fall_have_no_cliff(ratios: dict[int, float | None]) -> None:
    assert cliffs(_over_sessions(ratios), "holdfast") == ()


def test_cliff_is_of_one_policy() -> None:
    runs = _over_sessions({2: 0.9, 4: 0.9, 8: 0.8})
    runs += _over_sessions({2: 0.9, 4: 0.1, 8: 0.1}, "stateless")
    (cliff,) = cliffs(runs, "holdfast")
    assert (cliff.from_load, cliff.to_load) == (4, 8)


def test_cliff_reads_as_a_sentence() -> None:
    (cliff,) = cliffs(_over_sessions({4: 0.98, 8: 0.97, 16: 0.39}), "holdfast")
    text = format_cliff(cliff)
    assert "from 8 to 16 sessions at once" in text
    assert "from 16" in text
