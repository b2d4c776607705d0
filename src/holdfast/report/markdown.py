"""Report tables as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

from holdfast.report.tables import ReportTable

__all__ = ["markdown_table", "markdown_tables"]

_LINE_LENGTH: Final = 120
"""Of titles and notes; rows cannot be wrapped."""


def markdown_tables(tables: Iterable[ReportTable]) -> str:
    """All tables below each other, each under its title in bold; pure."""
    return "\n".join(markdown_table(table) for table in tables)


def markdown_table(table: ReportTable) -> str:
    """One table: title, notes, rows; headings of groups are rows in bold; pure."""
    lines = [*textwrap.wrap(f"**{table.title}**", _LINE_LENGTH), ""]
    for note in table.notes:
        lines += [*textwrap.wrap(note, _LINE_LENGTH), ""]
    lines.append(_row(column.heading for column in table.columns))
    lines.append("|---|" + "---:|" * (len(table.columns) - 1))
    for group in table.groups:
        if group.heading:
            lines.append(_row((f"**{group.heading}**", *[""] * (len(table.columns) - 1))))
        lines += map(_row, group.rows)
    return "\n".join([*lines, ""])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
