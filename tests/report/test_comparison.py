"""Two policies side by side, and the documents and extras that reports need."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.runs import run_of, runs_of

import holdfast.report.page as page
from holdfast.core.results import RunDocument, RunResult
from holdfast.errors import HoldfastError
from holdfast.report.comparison import Comparison, Score, compare, compare_pair
from holdfast.report.document import read_document, write_document
from holdfast.report.metrics import METRICS
from holdfast.report.replay_report import replay_table
from holdfast.report.tables import ReportTable, side_by_side_table
from holdfast.report.terminal import terminal_table

PAIR = ("vllm-default", "holdfast")


def _pair(runs: list[RunResult]) -> Comparison:
    return compare(runs, policies=PAIR, metrics=METRICS)


def _score(comparison: Comparison, label: str, policy: str = "holdfast", point: int = 0) -> Score:
    entry = comparison.points[point].entry(policy)
    assert entry is not None
    return entry.score(label)


def _gain(comparison: Comparison, label: str) -> float | None:
    gain = _score(comparison, label).gain
    return None if gain is None else gain.mean


def _shown(table: ReportTable) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_table(table))
    return console.export_text()


def _row(table: ReportTable, label: str) -> tuple[str, ...]:
    return next(row for group in table.groups for row in group.rows if row[0] == label)


def test_gain_above_one_is_better_in_either_direction() -> None:
    comparison = _pair(
        [run_of("vllm-default"), run_of("holdfast", evicted_blocks=50, token_hit_ratio=0.75)]
    )
    assert _gain(comparison, "evicted blocks") == pytest.approx(2.0)
    assert _gain(comparison, "token hit ratio") == pytest.approx(1.5)


def test_gain_pairs_seeds_and_keeps_their_range() -> None:
    runs = [
        run_of(policy, seed, evicted_blocks=blocks)
        for policy, counts in (("vllm-default", (10, 90, 30)), ("holdfast", (10, 10, 10)))
        for seed, blocks in enumerate(counts)
    ]
    comparison = _pair(runs)
    # 1, 9 and 3: the cube root of 27.
    assert _gain(comparison, "evicted blocks") == pytest.approx(3.0)
    interval = _score(comparison, "evicted blocks", "vllm-default").interval
    assert interval is not None
    assert (interval.median, interval.low, interval.high) == (30, 10, 90)


def test_zero_denominator_gives_no_gain() -> None:
    comparison = _pair([run_of("vllm-default"), run_of("holdfast", evicted_blocks=0)])
    assert _gain(comparison, "evicted blocks") is None


def test_seed_of_one_policy_only_is_shown_but_not_paired() -> None:
    comparison = _pair([run_of("vllm-default", 0), run_of("holdfast", 1)])
    assert _gain(comparison, "makespan (s)") is None
    assert _score(comparison, "makespan (s)", "vllm-default").interval is not None
    assert _score(comparison, "makespan (s)").interval is not None


def test_errors_have_no_gain() -> None:
    comparison = _pair([run_of("vllm-default", num_errors=2), run_of("holdfast", num_errors=1)])
    assert _gain(comparison, "errors") is None


def test_points_come_lightest_first_and_stay_apart() -> None:
    runs = [run_of("holdfast", concurrency=12), run_of("holdfast", concurrency=2, makespan_s=3.0)]
    comparison = _pair(runs)
    assert [point.load.concurrency for point in comparison.points] == [2, 12]
    interval = _score(comparison, "makespan (s)").interval
    assert interval is not None
    assert interval.median == 3.0


def test_policies_not_asked_for_are_left_out() -> None:
    comparison = _pair([run_of("holdfast"), run_of("saga", concurrency=4)])
    assert comparison.policies == PAIR
    assert [point.load.concurrency for point in comparison.points] == [8]


# Side by side.


def test_unknown_values_are_shown_as_dashes() -> None:
    table = side_by_side_table(_pair([run_of("vllm-default", evicted_blocks=None)]), "title")
    line = next(x for x in _shown(table).splitlines() if "evicted" in x)
    assert line.count("\u2013") == 3


def test_loss_is_shown_with_its_interval() -> None:
    runs = runs_of("vllm-default", [2.0, 2.0]) + runs_of("holdfast", [4.0, 4.0])
    table = side_by_side_table(_pair(runs), "title")
    assert _row(table, "LLM time a session, mean (s)")[-1] == "0.50x (0.50 to 0.50)"
    assert "below 1.00x is a loss" in _shown(table)


def test_replay_shows_ratio_and_gain_of_second_run() -> None:
    table = replay_table([run_of("one", llm_s=4.0), run_of("two", llm_s=2.0, num_turns=10)])
    assert [column.heading for column in table.columns][1:] == [
        *("one", "two", "second / first", "gain"),
    ]
    assert _row(table, "LLM time a session, mean (s)")[1:] == ("4.00", "2.00", "0.50", "2.00x")
    assert _row(table, "turns answered")[1:] == ("40", "10", "0.25", "")
    assert table.title == "two against one"


def test_replay_of_one_endpoint_has_no_gain() -> None:
    table = replay_table([run_of("one", partial=True)])
    assert [column.heading for column in table.columns] == ["", "one (partial)"]
    assert table.notes == ()


def test_replay_compares_endpoints_of_one_name_and_two_sizes() -> None:
    first, second = run_of("same", llm_s=4.0), run_of("same", llm_s=2.0, kv_tokens=2048)
    comparison = compare_pair(first, second, METRICS)
    assert comparison.policies == ("same", "same (second)")
    assert comparison.points[0].load.kv_tokens is None
    assert _score(comparison, "makespan (s)", "same (second)").gain is not None


# Documents and extras.


def test_document_is_read_back_as_written(tmp_path: Path) -> None:
    document = RunDocument(manifest={"seeds": [0]}, runs=[run_of("holdfast")])
    path = tmp_path / "new" / "run.json"
    write_document(path, document)
    assert read_document(path) == document
    assert json.loads(path.read_text())["schema"] == "holdfast.run/1"
    assert [file.name for file in path.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["{", "{}", '{"manifest": {}, "runs": [], "schema": "other/1"}'])
def test_other_documents_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(HoldfastError, match=r"run\.json"):
        read_document(path)


def test_missing_extra_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(HoldfastError, match="needs matplotlib") as caught:
        page.require_plots()
    assert caught.value.hint == "pip install 'holdfast[plots]'"
