"""What the page of ranking shows, and that it stands alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.report.page_reader import read_page
from tests.report.runs import run_of

from holdfast.core.results import RunResult
from holdfast.errors import HoldfastError
from holdfast.report import page
from holdfast.report.policy_ranking import stand
from holdfast.report.policy_ranking_html import (
    curves_svg,
    gains_svg,
    render_policy_ranking_html,
    write_policy_ranking_html,
)

pytest.importorskip("matplotlib")


def _sweep(*policies: str) -> list[RunResult]:
    return [
        run_of(
            policy,
            seed,
            float(2 + place + seed),
            concurrency=concurrency,
            token_hit_ratio=1 / concurrency,
            evicted_blocks=None,
        )
        for place, policy in enumerate(policies)
        for seed in (0, 1)
        for concurrency in (4, 8, 16)
    ]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = render_policy_ranking_html(_sweep("vllm-default", "holdfast", "clairvoyant"), {})
    reader = read_page(page)
    assert all(address.startswith("#") for address in reader.loaded)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    assert "http://" not in page
    assert "https://" not in page


def test_the_page_is_closed_in_order() -> None:
    assert read_page(render_policy_ranking_html(_sweep("vllm-default", "holdfast"), {})).open == []


def test_names_and_manifest_are_escaped() -> None:
    runs = _sweep("vllm-default", "<b>", "_$x$")
    page = render_policy_ranking_html(runs, {"note": "<script>alert(1)</script>"}, baseline="<b>")
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "<script" not in page
    assert "_$x$" in page


def test_the_page_has_gains_intervals_cliffs_and_the_manifest() -> None:
    runs = _sweep("vllm-default", "holdfast")
    page = render_policy_ranking_html(runs, {"profile": "cpu-tiny"})
    # The ratios are 2 to 3 and 3 to 4; the root of a half is 0.71.
    assert "0.71x" in page
    assert "recomputed tokens" in page
    assert "the hit ratio falls fastest from 4 to 8" in page
    assert "cpu-tiny" in page


def test_curves_are_drawn_for_every_policy_and_only_over_an_axis_that_changes() -> None:
    drawn = curves_svg(_sweep("vllm-default", "saga"))
    assert drawn is not None
    assert "saga" in drawn
    assert "sessions at once" in drawn
    assert drawn.count("token miss ratio") == 1
    assert curves_svg([run_of("vllm-default"), run_of("saga")]) is None


def test_a_policy_that_only_one_panel_has_is_in_the_legend() -> None:
    runs = [*_sweep("vllm-default")]
    for concurrency in (4, 8):
        for kv_tokens in (2048, 4096):
            runs.append(run_of("saga", concurrency=concurrency, kv_tokens=kv_tokens))
    drawn = curves_svg(runs)
    assert drawn is not None
    assert len(re.findall(r">\s*saga\s*<", drawn)) == 1


def test_without_a_gain_there_is_no_figure_of_gains() -> None:
    assert gains_svg(stand(_sweep("vllm-default"))) is None
    assert gains_svg(stand(_sweep("vllm-default", "holdfast"))) is not None


def test_a_page_of_no_runs_can_be_made() -> None:
    assert "<svg" not in render_policy_ranking_html([], {})


def test_equal_runs_give_equal_pages() -> None:
    runs = _sweep("vllm-default", "holdfast")
    assert render_policy_ranking_html(runs, {}) == render_policy_ranking_html(runs, {})


def test_writing_leaves_only_the_page(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ranking.html"
    write_policy_ranking_html(path, _sweep("vllm-default"), {})
    assert [file.name for file in path.parent.iterdir()] == ["ranking.html"]
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HoldfastError, match=r"page\.html: cannot be written"):
        write_policy_ranking_html(tmp_path / "file" / "page.html", [], {})


def test_a_missing_extra_is_said_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(HoldfastError, match="needs jinja2 and matplotlib"):
        render_policy_ranking_html([], {})
