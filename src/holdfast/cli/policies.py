"""`holdfast policies`: the policies to choose from, and their sources."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

__all__ = ["policies"]


@click.command()
def policies() -> None:
    """List the scheduling policies, with their sources."""
    from holdfast.policies import registry

    table = Table(box=None, pad_edge=False)
    for heading in ("policy", "what it does", "source", "how it differs"):
        table.add_column(heading, overflow="fold")
    for spec in registry.policy_specs():
        table.add_row(spec.name, spec.summary, spec.source, spec.differs)
    Console().print(table)
