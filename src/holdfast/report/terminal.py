"""Report tables on a terminal, readable without colour."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from holdfast.report.tables import ReportTable

__all__ = ["terminal_table", "terminal_tables"]


def terminal_tables(tables: Iterable[ReportTable], caption: str = "") -> Group:
    """All tables below each other, and a caption below the last; pure."""
    shown: list[Table | Text] = []
    for table in tables:
        shown += [Text()] if shown else []
        shown.append(terminal_table(table))
    if shown and caption:
        shown.append(Text(caption))
    return Group(*shown)


def terminal_table(table: ReportTable) -> Table:
    """One table; pure."""
    notes = "\n".join(table.notes)
    drawn = Table(
        title=Text(table.title, style="bold"),
        title_justify="left",
        caption=Text(notes) if notes else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(column.heading),
            width=column.width,
            justify="right" if index else "left",
            overflow="fold",
        )
    for group in table.groups:
        if group.heading:
            drawn.add_row(Text(group.heading, style="bold"))
        for row in group.rows:
            drawn.add_row(*map(Text, row))
        drawn.add_section()
    return drawn
