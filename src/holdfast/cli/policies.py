"""`holdfast policies`: the policies to choose from, and their sources."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from holdfast.errors import PolicyError

__all__ = ["policies"]


@click.command()
def policies() -> None:
    """List the scheduling policies, with their sources."""
    from holdfast.policies import registry

    table = Table(box=None, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for heading in ("decides", "what it does", "source", "how it differs"):
        table.add_column(heading, overflow="fold")
    for spec in registry.policy_specs():
        table.add_row(spec.name, _decides(spec.name), spec.summary, spec.source, spec.differs)
    console = Console()
    console.print(table)
    console.print(
        "\nNames join with +: cachewise+working-set evicts as one and admits as the other."
    )


def _decides(name: str) -> str:
    """What a policy decides, as a cell; "" where it cannot be loaded."""
    from holdfast.policies import registry

    try:
        decisions = registry.decided_by(name)
        needs = registry.policy_spec(name).needs
    except PolicyError:
        return ""
    return ", ".join([*decisions, *(("in simulation only",) if needs else ())])
