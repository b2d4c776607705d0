"""The page of a simulation: its content, and that it stands alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.page_reader import read_page
from tests.report.runs import run_of, runs_of

from holdfast.core.results import RunResult
from holdfast.errors import HoldfastError
from holdfast.report import page
from holdfast.report.comparison import compare
from holdfast.report.html import render_html, write_html
from holdfast.report.plots import curves_svg, gains_svg
from holdfast.report.simulation_report import simulation_page, simulation_tables
from holdfast.report.terminal import terminal_tables

pytest.importorskip("matplotlib")


def _sweep(*policies: str) -> list[RunResult]:
    return [
        run_of(
            policy,
            seed,
            float(2 + index + seed),
            concurrency=concurrency,
            token_hit_ratio=1 / concurrency,
            evicted_blocks=None,
        )
        for index, policy in enumerate(policies)
        for seed in (0, 1)
        for concurrency in (4, 8, 16)
    ]


def _rendered(runs: Sequence[RunResult], **manifest: str) -> str:
    return render_html(simulation_page(runs), manifest)


def test_page_loads_nothing_from_elsewhere() -> None:
    rendered = _rendered(_sweep("vllm-default", "holdfast", "clairvoyant"))
    reader = read_page(rendered)
    assert all(address.startswith("#") for address in reader.loaded)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    assert "http://" not in rendered
    assert "https://" not in rendered


def test_page_tags_are_closed_in_order() -> None:
    assert read_page(_rendered(_sweep("vllm-default", "holdfast"))).open == []


def test_names_and_manifest_are_escaped() -> None:
    found = simulation_page(_sweep("vllm-default", "<b>", "_$x$"), baseline="<b>")
    rendered = render_html(found, {"note": "<script>alert(1)</script>"})
    assert "<b>" not in rendered
    assert "&lt;b&gt;" in rendered
    assert "<script" not in rendered
    assert "_$x$" in rendered


def test_page_has_gains_intervals_cliffs_and_manifest() -> None:
    rendered = _rendered(_sweep("vllm-default", "holdfast"), profile="cpu-tiny")
    # The ratios are 2 to 3 and 3 to 4; the root of a half is 0.71.
    assert "0.71x" in rendered
    assert "recomputed tokens" in rendered
    assert "the hit ratio falls fastest from 4 to 8" in rendered
    assert "cpu-tiny" in rendered


def test_page_shows_every_cell_of_the_terminal() -> None:
    runs = _sweep("vllm-default", "holdfast", "clairvoyant")
    text = read_page(_rendered(runs)).text
    for table in simulation_tables(compare(runs)):
        cells = {cell for group in table.groups for row in group.rows for cell in row}
        assert [cell for cell in cells if cell not in text] == []
        assert table.title in text


def test_curves_drawn_only_over_an_axis_that_changes() -> None:
    drawn = curves_svg(_sweep("vllm-default", "saga"))
    assert drawn is not None
    assert "saga" in drawn
    assert "sessions at once" in drawn
    assert drawn.count("token miss ratio") == 1
    assert curves_svg([run_of("vllm-default"), run_of("saga")]) is None


def test_policy_of_a_single_panel_is_in_the_legend() -> None:
    runs = [*_sweep("vllm-default")]
    for concurrency in (4, 8):
        for kv_tokens in (2048, 4096):
            runs.append(run_of("saga", concurrency=concurrency, kv_tokens=kv_tokens))
    drawn = curves_svg(runs)
    assert drawn is not None
    assert len(re.findall(r">\s*saga\s*<", drawn)) == 1


def test_without_gain_there_is_no_figure_of_gains() -> None:
    assert gains_svg(compare(_sweep("vllm-default"))) is None
    assert gains_svg(compare(_sweep("vllm-default", "holdfast"))) is not None


def test_page_of_no_runs_can_be_made() -> None:
    assert "<svg" not in _rendered([])


def test_equal_runs_give_equal_pages() -> None:
    runs = _sweep("vllm-default", "holdfast")
    assert _rendered(runs) == _rendered(runs)


def test_writing_leaves_only_the_page(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ranking.html"
    write_html(path, simulation_page(_sweep("vllm-default")), {})
    assert [file.name for file in path.parent.iterdir()] == ["ranking.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_unwritable_page_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HoldfastError, match=r"page\.html: cannot be written"):
        write_html(tmp_path / "file" / "page.html", simulation_page([]), {})


def test_missing_extra_is_found_before_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    found = simulation_page([])
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(HoldfastError, match="needs jinja2 and matplotlib"):
        render_html(found, {})


def test_tables_fit_a_terminal_of_120_columns() -> None:
    window = {"window_start_s": 0.0, "window_s": 1800.0, "output_tokens_per_s": 1234.5}
    for changes in ({}, window, window | {"slo_output_tokens_per_s": 1000.0}):
        runs = [
            *runs_of("vllm-default", [1000.0, 1100.0, 1200.0], tier_hit_ratio=0.5, **changes),
            *runs_of("thunderagent", [1000.0, 1100.0, 1200.0], tier_hit_ratio=0.5, **changes),
        ]
        console = Console(width=120, record=True, file=StringIO())
        console.print(terminal_tables(simulation_tables(compare(runs)), ""))
        text = console.export_text()
        assert " baseline " in text
        assert " thunderagent " in text
        assert " 0.500 " in text
