"""Report tables as Markdown."""

from __future__ import annotations

from tests.report.runs import run_of

from holdfast.report.comparison import compare
from holdfast.report.markdown import markdown_table, markdown_tables
from holdfast.report.tables import Column, ReportTable, RowGroup, policies_table

TABLE = ReportTable(
    "Load",
    (Column("policy"), Column("gain")),
    (RowGroup("", (("a|b", "1.00x\n0.9"),)), RowGroup("light", (("c", "-"),))),
    notes=("One note.",),
)


def test_table_has_title_notes_groups_and_escaped_cells() -> None:
    assert markdown_table(TABLE).splitlines() == [
        "**Load**",
        "",
        "One note.",
        "",
        "| policy | gain |",
        "|---|---:|",
        "| a\\|b | 1.00x<br>0.9 |",
        "| **light** |  |",
        "| c | - |",
    ]


def test_tables_are_apart_by_an_empty_line() -> None:
    assert markdown_tables([TABLE, TABLE]).count("\n\n**Load**\n") == 1


def test_long_notes_are_wrapped() -> None:
    table = ReportTable("Load", (Column("policy"),), (), notes=("word " * 50,))
    assert max(map(len, markdown_table(table).splitlines())) <= 120


def test_ranges_stand_beside_the_objective_and_not_the_latencies() -> None:
    runs = [
        run_of(
            "vllm-default",
            seed,
            window_s=60.0,
            output_tokens_per_s=rate,
            token_hit_ratio=hits,
        )
        for seed, rate, hits in ((0, 90.0, 0.5), (1, 100.0, 0.5), (2, 120.0, 0.625))
    ]
    comparison = compare(runs)
    (group,) = policies_table(comparison, comparison.points[0], has_ranges=True).groups
    ((name, hits, evicted, output, gain, _, ttft, *_),) = group.rows
    assert (name, hits, evicted) == ("vllm-default", "0.500 (0.500 to 0.625)", "100")
    assert (output, gain, ttft) == ("100.0 (90.0 to 120.0)", "baseline", "1.000")
