"""Policies at every load: order, gains, distance to the bound, and tables."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.report.runs import run_of, runs_of, seconds

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import distance_to_bound
from holdfast.report.comparison import Comparison, Entry, compare, policy_order
from holdfast.report.gain import Gain, paired_gain
from holdfast.report.metrics import LLM_TIME
from holdfast.report.simulation_report import simulation_tables
from holdfast.report.tables import policies_table
from holdfast.report.terminal import terminal_tables


def _entry(comparison: Comparison, policy: str, point: int = 0) -> Entry:
    return next(entry for entry in comparison.points[point].entries if entry.policy == policy)


def _gain(runs: Sequence[RunResult], label: str = LLM_TIME.label) -> Gain | None:
    return _entry(compare(runs), "holdfast").score(label).gain


def _known(gain: Gain | None) -> Gain:
    assert gain is not None
    return gain


def _ends(gain: Gain | None) -> tuple[float | None, float | None]:
    return (None, None) if gain is None else (gain.low, gain.high)


# Order of policies, points and values.


def test_policies_ordered_floor_baseline_others_bound() -> None:
    given_order = ["clairvoyant", "saga", "holdfast", "autellix", "vllm-default", "stateless"]
    assert policy_order(given_order) == (
        "stateless", "vllm-default", "autellix", "saga", "holdfast", "clairvoyant",
    )  # fmt: skip


def test_any_baseline_is_ordered_second() -> None:
    assert policy_order(["vllm-default", "saga", "stateless"], "saga") == (
        "stateless", "saga", "vllm-default",
    )  # fmt: skip


def test_points_ordered_by_sessions_then_cache_size() -> None:
    loads = [(32, 1024), (8, 4096), (8, None), (8, 1024)]
    runs = [run_of("holdfast", concurrency=n, kv_tokens=kv) for n, kv in loads]
    found = [(point.load.concurrency, point.load.kv_tokens) for point in compare(runs).points]
    assert found == [(8, None), (8, 1024), (8, 4096), (32, 1024)]


def test_score_holds_median_and_range_of_all_seeds() -> None:
    interval = _entry(compare(runs_of("holdfast", [3.0, 9.0, 4.0])), "holdfast")
    found = interval.score(LLM_TIME.label).interval
    assert found is not None
    assert (found.median, found.low, found.high) == (4.0, 3.0, 9.0)


def test_scheduler_time_is_per_step() -> None:
    # 0.05 s over 1,000 steps is 50 us a step.
    found = _entry(compare([run_of("holdfast")]), "holdfast").score(
        "scheduler CPU a step (\u00b5s)"
    )
    assert found.interval is not None
    assert found.interval.median == pytest.approx(50.0)


def test_no_runs_give_no_points() -> None:
    assert compare([]).points == ()


# Gains.


def test_gain_is_geometric_mean_of_ratios_per_seed() -> None:
    # 8 / 4 = 2 and 8 / 1 = 8: sqrt(16) = 4.
    gain = _known(_gain(runs_of("vllm-default", [8.0, 8.0]) + runs_of("holdfast", [4.0, 1.0])))
    assert gain.mean == pytest.approx(4.0)
    assert gain.by_seed == ((0, 2.0), (1, 8.0))


def test_interval_is_students_t_on_logarithms() -> None:
    # ln 2, ln 4, ln 8: centre ln 4, deviation ln 2, error ln 2 / sqrt(3), t(0.975; 2) = 4.30265.
    # 4.30265 / sqrt(3) = 2.48414, so the ends are 4 / 2^2.48414 and 4 * 2^2.48414.
    runs = runs_of("vllm-default", [8.0, 8.0, 8.0]) + runs_of("holdfast", [4.0, 2.0, 1.0])
    assert _ends(_gain(runs)) == pytest.approx((0.71493, 22.3800), rel=1e-4)


@pytest.mark.parametrize(
    ("num_seeds", "quantile"),
    [(2, 12.7062), (3, 4.30265), (4, 3.18245), (5, 2.77645), (10, 2.26216), (31, 2.04227)],
)
def test_quantiles_match_printed_tables(num_seeds: int, quantile: float) -> None:
    # Alternating ratios e and 1/e; their deviation follows from the definition.
    logs = [1.0 if seed % 2 else -1.0 for seed in range(num_seeds)]
    centre = sum(logs) / num_seeds
    deviation = (sum((x - centre) ** 2 for x in logs) / (num_seeds - 1)) ** 0.5
    half = quantile * deviation / num_seeds**0.5
    runs = runs_of("vllm-default", [1.0] * num_seeds)
    runs += runs_of("holdfast", [2.718281828459045**-x for x in logs])
    low, high = _ends(_gain(runs))
    assert low == pytest.approx(2.718281828459045 ** (centre - half), rel=1e-4)
    assert high == pytest.approx(2.718281828459045 ** (centre + half), rel=1e-4)


@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)), min_size=2, max_size=9))
def test_interval_holds_mean_and_inverts_with_sides(
    pairs: list[tuple[float, float]],
) -> None:
    first = dict(enumerate(runs_of("a", [before for before, _ in pairs])))
    second = dict(enumerate(runs_of("b", [after for _, after in pairs])))
    there = _known(paired_gain(LLM_TIME, first, second))
    back = _known(paired_gain(LLM_TIME, second, first))
    assert there.low is not None
    assert there.high is not None
    assert there.low <= there.mean * (1 + 1e-9)
    assert there.high >= there.mean * (1 - 1e-9)
    assert back.mean == pytest.approx(1 / there.mean)
    assert back.low == pytest.approx(1 / there.high)


def test_gain_above_one_when_higher_value_is_better() -> None:
    runs = [run_of("vllm-default"), run_of("holdfast", token_hit_ratio=0.75)]
    assert _known(_gain(runs, "token hit ratio")).mean == pytest.approx(1.5)


def test_spread_common_to_both_sides_gives_narrow_interval() -> None:
    runs = runs_of("vllm-default", [2.0, 200.0, 20.0]) + runs_of("holdfast", [1.0, 100.0, 10.0])
    assert _ends(_gain(runs)) == pytest.approx((2.0, 2.0))


def test_one_common_seed_has_no_interval() -> None:
    gain = _known(_gain(runs_of("vllm-default", [2.0, 2.0]) + runs_of("holdfast", [1.0])))
    assert (gain.mean, gain.low, gain.high) == (2.0, None, None)


def test_seeds_of_one_policy_only_left_out_of_gain() -> None:
    runs = [run_of("vllm-default", 0, 6.0), run_of("vllm-default", 1, 9.0)]
    runs += [run_of("holdfast", 1, 3.0), run_of("holdfast", 2, 1.0)]
    assert _known(_gain(runs)).by_seed == ((1, 3.0),)


def test_seed_without_metric_left_out_of_gain() -> None:
    runs = runs_of("vllm-default", [2.0, 2.0]) + runs_of("holdfast", [None, 1.0])
    assert _known(_gain(runs)).by_seed == ((1, 2.0),)


def test_ratio_with_zero_denominator_not_averaged() -> None:
    runs = [run_of("vllm-default", seed) for seed in (0, 1)]
    runs += [run_of("holdfast", 0, evicted_blocks=0), run_of("holdfast", 1, evicted_blocks=50)]
    gain = _known(_gain(runs, "evicted blocks"))
    assert gain.by_seed == ((0, None), (1, 2.0))
    assert gain.mean == 2.0


def test_only_zero_denominators_give_no_gain() -> None:
    runs = [run_of("vllm-default"), run_of("holdfast", evicted_blocks=0)]
    assert _gain(runs, "evicted blocks") is None


def test_ratio_of_zero_gives_gain_zero_without_interval() -> None:
    runs = [run_of("vllm-default", seed) for seed in (0, 1)]
    runs += [run_of("holdfast", 0, token_hit_ratio=0.0), run_of("holdfast", 1)]
    gain = _known(_gain(runs, "token hit ratio"))
    assert (gain.mean, gain.low, gain.high) == (0.0, None, None)


def test_baseline_has_no_gain_over_itself() -> None:
    entry = _entry(compare(runs_of("vllm-default", [1.0, 2.0])), "vllm-default")
    assert entry.score(LLM_TIME.label).gain is None


def test_errors_have_no_gain() -> None:
    runs = [run_of("vllm-default", num_errors=2), run_of("holdfast", num_errors=1)]
    assert _gain(runs, "errors") is None


def test_runs_of_different_points_not_paired() -> None:
    runs = [run_of("vllm-default", kv_tokens=2048), run_of("holdfast", kv_tokens=1024)]
    assert _gain(runs) is None


def test_metric_unknown_to_all_runs_is_none() -> None:
    score = _entry(compare([run_of("holdfast", evicted_blocks=None)]), "holdfast").score(
        "evicted blocks"
    )
    assert (score.interval, score.gain) == (None, None)


def test_partial_runs_and_failed_turns_are_counted() -> None:
    runs = [run_of("holdfast", 0, num_errors=1), run_of("holdfast", 1, partial=True, num_errors=2)]
    entry = _entry(compare(runs), "holdfast")
    assert (entry.partial_seeds, entry.num_errors) == ((1,), 3)


# Distance to the bound.


def test_distance_is_ratio_and_shares_of_the_way() -> None:
    # Floor 40, baseline 20, policy 12, bound 10: 1.2 times the bound, 28 of 30 and 8 of 10.
    times_s = {"stateless": 40.0, "vllm-default": 20.0, "holdfast": 12.0, "clairvoyant": 10.0}
    runs = [run_of(policy, 0, llm_s) for policy, llm_s in times_s.items()]
    distance = distance_to_bound(runs, "holdfast")
    assert distance.times_bound == pytest.approx(1.2)
    assert distance.share_from_floor == pytest.approx(28 / 30)
    assert distance.share_from_baseline == pytest.approx(0.8)
    assert _entry(compare(runs), "holdfast").distance == distance


def test_policy_worse_than_start_covers_negative_share() -> None:
    runs = [
        run_of("vllm-default", 0, 20.0),
        run_of("saga", 0, 25.0),
        run_of("clairvoyant", 0, 10.0),
    ]
    assert distance_to_bound(runs, "saga").share_from_baseline == pytest.approx(-0.5)


@pytest.mark.parametrize("bound_s", [10.0, 9.95, 11.0])
def test_bound_without_advantage_gives_no_share(bound_s: float) -> None:
    runs = [
        run_of("vllm-default", 0, 10.0),
        run_of("holdfast", 0, 9.99),
        run_of("clairvoyant", 0, bound_s),
    ]
    distance = distance_to_bound(runs, "holdfast")
    assert distance.share_from_baseline is None
    assert distance.times_bound is not None


def test_without_bound_there_is_no_distance() -> None:
    distance = distance_to_bound([run_of("vllm-default"), run_of("holdfast")], "holdfast")
    assert (distance.times_bound, distance.share_from_baseline) == (None, None)


def test_runs_of_two_points_have_no_common_bound() -> None:
    with pytest.raises(ValueError, match="more than one point"):
        distance_to_bound([run_of("holdfast"), run_of("holdfast", concurrency=9)], "holdfast")


# On the terminal.


def _shown(runs: Sequence[RunResult]) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_tables(simulation_tables(compare(runs))))
    return console.export_text()


def _line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_loss_is_shown() -> None:
    runs = runs_of("vllm-default", [2.0, 2.0]) + runs_of("holdfast", [4.0, 4.0])
    assert "0.50x 0.50 to 0.50" in " ".join(_line(_shown(runs), "holdfast").split())


def test_large_values_fit_into_120_columns() -> None:
    policies = ["vllm-default", "thunderagent", "holdfast", "clairvoyant", "cachewise-oracle"]
    runs = [
        run_of(
            policy, seed, 1234.5 * seed, evicted_blocks=12_345_678, makespan_s=123_456.7,
            request_latency_s=seconds(1234.567), concurrency=128, kv_tokens=12_345_678,
        )
        for policy in policies
        for seed in (1, 2)
    ]  # fmt: skip
    cells = re.split(r"\s{2,}", _line(_shown(runs), "cachewise").strip())
    assert cells == [
        "cachewise-oracle*", "0.500", "12,345,678", "1,851.75", "1.00x", "1.00 to 1.00",
        "1,234.567", "1,234.567", "123,456.7", "1.00x",
    ]  # fmt: skip


def test_each_point_has_its_own_table() -> None:
    text = _shown([run_of("holdfast", concurrency=2), run_of("holdfast", concurrency=4)])
    assert text.index("2 sessions at once") < text.index("4 sessions at once")


def test_policies_with_future_are_starred_except_bound() -> None:
    text = _shown([run_of("vllm-default"), run_of("cachewise-oracle"), run_of("clairvoyant")])
    assert "cachewise-oracle*: told the future, like the bound" in text
    assert "clairvoyant*" not in text


def test_incomparable_runs_are_starred_and_noted() -> None:
    runs = [
        run_of("vllm-default", 0),
        run_of("vllm-default", 1),
        run_of("holdfast", 0, partial=True),
    ]
    text = _shown(runs)
    assert "holdfast*: stopped before the end with seed 0; not run with seed 1" in text
    assert "vllm-default*" not in text


def test_unknown_values_are_dashes_and_markup_is_text() -> None:
    line = _line(_shown([run_of("[bold]x", evicted_blocks=None)]), "[bold]x")
    assert "\u2013" in line


def test_lower_bound_has_a_row_of_its_own() -> None:
    runs = [
        *runs_of("vllm-default", [4.0, 4.0], session_llm_time_bound_s=1.0),
        *runs_of("clairvoyant", [2.0, 2.0], session_llm_time_bound_s=1.0),
    ]
    comparison = compare(runs)
    (table,) = (
        policies_table(comparison, point, has_distances=True) for point in comparison.points
    )
    row = table.groups[0].rows[-1]
    assert row[0] == "lower bound"
    assert "1.00" in row
    assert "0.50x" in row
    assert len(row) == len(table.columns)


def test_window_is_ranked_by_output() -> None:
    window = {"window_start_s": 0.0, "window_s": 10.0}
    runs = [
        *runs_of("vllm-default", [None], output_tokens_per_s=100.0, **window),
        *runs_of("holdfast", [None], output_tokens_per_s=150.0, **window),
        *runs_of("clairvoyant", [None], output_tokens_per_s=180.0, **window),
    ]
    (point,) = compare(runs).points
    entry = point.entry("holdfast")
    assert entry is not None
    assert entry.score(point.objective.label).gain is not None
    assert entry.distance.times_bound == pytest.approx(1.2)
    assert entry.distance.share_from_baseline == pytest.approx(50 / 80)
