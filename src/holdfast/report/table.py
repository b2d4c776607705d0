"""A comparison as one table on the terminal, readable without colour."""

from __future__ import annotations

from rich.table import Table

from holdfast.report.comparison import Comparison, Interval, Metric, Point, Row

__all__ = ["UNKNOWN", "comparison_table", "format_gain", "format_interval", "format_load"]

UNKNOWN = "\u2013"
"""Stands for a value that is not known or not defined."""


def comparison_table(comparison: Comparison, *, what: str = "") -> Table:
    """One table, the points below each other; values are medians, with the range of the seeds.

    Args:
        comparison: What to show.
        what: Stands before the names in the title.
    """
    table = Table(title=f"{what}{comparison.subject} against {comparison.baseline}")
    table.add_column("")
    for policy in (comparison.baseline, comparison.subject):
        table.add_column(policy, justify="right")
    table.add_column("gain", justify="right")
    for point in comparison.points:
        table.add_row(format_load(point), style="bold")
        for row in point.rows:
            table.add_row(
                row.metric.label,
                format_interval(row.metric, row.baseline),
                format_interval(row.metric, row.subject),
                format_gain(row),
            )
        table.add_section()
    return table


def format_load(point: Point) -> str:
    """The load in words."""
    size = "" if point.kv_tokens is None else f", {point.kv_tokens:,} KV tokens"
    seeds = "" if len(point.seeds) < 2 else f", {len(point.seeds)} seeds"
    return f"{point.concurrency} sessions at once{size}{seeds}"


def format_interval(metric: Metric, interval: Interval | None) -> str:
    """The median, followed by the range where seeds differ."""
    if interval is None:
        return UNKNOWN
    median, low, high = (
        f"{value:,.{metric.num_decimals}f}"
        for value in (interval.median, interval.low, interval.high)
    )
    return median if low == high else f"{median} ({low} to {high})"


def format_gain(row: Row) -> str:
    """How many times better, or an empty string where neither direction is."""
    if row.metric.better == "neither":
        return ""
    return UNKNOWN if row.gain is None else f"{row.gain:.2f}x"
