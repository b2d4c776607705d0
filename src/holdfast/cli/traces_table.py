"""Tables of `holdfast traces`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table

from holdfast.core.results import Distribution
from holdfast.workload.statistics import StatisticsDocument

__all__ = ["losses_table", "statistics_tables"]

_MAX_TOOLS = 10
_NONE = "\N{EN DASH}"


def losses_table(losses: Mapping[str, int]) -> Table:
    """The values that a format loses, the most frequent first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("not in the new format")
    table.add_column("values", justify="right")
    for name, num_values in sorted(losses.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(escape(name), f"{num_values:,}")
    return table


def statistics_tables(document: StatisticsDocument) -> Iterator[Table]:
    """The figures of all files: totals, distributions, the most called tools."""
    totals = Table(box=None, pad_edge=False, show_header=False)
    totals.add_column()
    totals.add_column(justify="right")
    files = document.files
    formats = sorted({file.format_name for file in files} - {""})
    for name, value in (
        ("files", f"{len(files):,} ({', '.join(formats)})"),
        ("sessions", f"{document.num_sessions:,}"),
        ("  sub-agents", f"{document.num_sub_agents:,}"),
        ("  recorded arrivals", f"{document.num_arrivals:,}"),
        ("turns", f"{document.num_turns:,}"),
        ("prompt tokens", f"{document.prompt_tokens:,}"),
        ("output tokens", f"{document.output_tokens:,}"),
        ("distinct tokens", f"{document.distinct_tokens:,}"),
        ("reused in the session", _percent(document.session_reuse_ratio)),
        ("reused in all sessions", _percent(document.reading_reuse_ratio)),
        ("gaps estimated", f"{sum(file.num_estimated_gaps for file in files):,}"),
        ("gaps corrected", f"{sum(file.num_corrected_gaps for file in files):,}"),
        ("gaps too long, left", f"{sum(file.num_uncorrected_gaps for file in files):,}"),
        ("lengths estimated", f"{sum(file.num_estimated_lengths for file in files):,}"),
        ("sessions without an answer", f"{sum(file.num_unanswered for file in files):,}"),
        ("sessions without their parent", f"{sum(file.num_orphans for file in files):,}"),
        ("negative values", f"{sum(file.num_negative_values for file in files):,}"),
        ("left out", f"{document.num_skipped:,}"),
        ("files not read", f"{len(document.unread_files):,}"),
    ):
        totals.add_row(name, value)
    yield totals
    yield _distributions(document)
    if document.calls_by_tool:
        yield _tools(document)


def _distributions(document: StatisticsDocument) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("number", "mean", "p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    for name, number, spread in (
        ("turns a session", document.num_sessions, document.turns_per_session),
        ("tokens a prompt", document.num_turns, document.tokens_per_prompt),
        ("tokens an answer", document.num_turns, document.tokens_per_answer),
        *(
            (f"gap in s, {ended_by}", gaps.num_gaps, gaps.gap_s)
            for ended_by, gaps in document.gaps.items()
        ),
    ):
        table.add_row(name, f"{number:,}", *_cells(spread))
    return table


def _cells(spread: Distribution | None) -> list[str]:
    if spread is None:
        return [_NONE] * 4
    return [f"{value:,.1f}" for value in (spread.mean, spread.p50, spread.p95, spread.p99)]


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1%}"


def _tools(document: StatisticsDocument) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("tool")
    table.add_column("calls", justify="right")
    for name, num_calls in list(document.calls_by_tool.items())[:_MAX_TOOLS]:
        table.add_row(escape(name), f"{num_calls:,}")
    others = sum(list(document.calls_by_tool.values())[_MAX_TOOLS:])
    if others:
        table.add_row("others", f"{others:,}")
    return table
