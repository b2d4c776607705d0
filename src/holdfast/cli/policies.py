"""`holdfast policies`: what can be chosen, and where it comes from."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

__all__ = ["policies"]


@click.command()
def policies() -> None:
    """List the scheduling policies, with their sources."""
    from holdfast.policies.registry import POLICIES

    table = Table(box=None, pad_edge=False)
    for heading in ("policy", "what it does", "source"):
        table.add_column(heading, overflow="fold")
    for spec in POLICIES.values():
        table.add_row(spec.name, spec.summary, spec.source)
    Console().print(table)
