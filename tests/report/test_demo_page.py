"""The page of a demonstration: all tables of the terminal, tiers included."""

from __future__ import annotations

import pytest
from tests.report.page_reader import read_page
from tests.report.runs import run_of

from holdfast.core.results import RunResult
from holdfast.report.demo_report import demo_page, demo_tables
from holdfast.report.html import render_html

pytest.importorskip("matplotlib")

TIERED = "holdfast-tiers"
PAIR = [
    run_of(policy, concurrency=concurrency, evicted_blocks=blocks)
    for policy, blocks in (("vllm-default", 100), ("holdfast", 50))
    for concurrency in (2, 14)
]
TIERS = run_of(TIERED, concurrency=14, host_tokens=777_111)
RESTARTED = [
    run_of("holdfast", llm_s=6.0, concurrency=14),
    run_of(TIERED, llm_s=2.0, concurrency=14, disk_tokens=888_222),
]


def _rendered(
    runs: list[RunResult], restarted: list[RunResult], remarks: tuple[str, ...] = ()
) -> str:
    return render_html(demo_page(runs, restarted, TIERED, remarks), {"note": "<script>"})


def test_page_shows_every_cell_of_the_terminal() -> None:
    runs = [*PAIR, TIERS]
    tables = demo_tables(runs, RESTARTED, TIERED)
    reader = read_page(_rendered(runs, RESTARTED))
    assert len(tables) == 3
    for table in tables:
        cells = {cell for group in table.groups for row in group.rows for cell in row}
        headings = {column.heading for column in table.columns}
        notes = {*table.notes, *(group.heading for group in table.groups), table.title}
        assert [part for part in cells | headings | notes if part not in reader.text] == []
    assert reader.open == []


def test_page_shows_tiers_and_restart_with_gains() -> None:
    text = read_page(_rendered([*PAIR, TIERS], RESTARTED)).text
    assert text.index("777,111") < text.index("888,222")
    restart = text[text.index("The next turn after a restart") :]
    assert "3.00x" in restart


def test_tiers_are_compared_at_their_own_load() -> None:
    _, tiers, _ = demo_tables([*PAIR, TIERS], RESTARTED, TIERED)
    assert [group.heading for group in tiers.groups] == ["14 sessions at once, 1,024 KV tokens"]


def test_page_without_tiers_says_why() -> None:
    text = read_page(_rendered(PAIR, [], ("without tiers: too old",))).text
    assert "without tiers: too old" in text
    assert "Tiers below the KV cache" not in text


def test_interrupted_demo_leaves_out_the_restart() -> None:
    assert len(demo_tables([*PAIR, TIERS], [], TIERED)) == 2
    assert len(demo_tables(PAIR, RESTARTED[:1], TIERED)) == 1


def test_page_of_runs_without_sessions_has_no_legend() -> None:
    runs = [run_of("vllm-default", llm_s=None), run_of("holdfast", llm_s=None)]
    assert "<svg" in _rendered(runs, [])


def test_page_loads_nothing_from_elsewhere() -> None:
    rendered = _rendered(PAIR, [])
    assert "<svg" in rendered
    assert "2.00x" in rendered
    assert "<script" not in rendered
    assert 'src="' not in rendered
    assert "url(http" not in rendered


def test_equal_demos_give_equal_pages() -> None:
    assert _rendered(PAIR, RESTARTED) == _rendered(PAIR, RESTARTED)
