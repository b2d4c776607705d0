"""`holdfast policies`: the policies to choose from, sources and settings."""

from __future__ import annotations

import click
import msgspec
from rich.console import Console
from rich.table import Table

from holdfast.errors import PolicyError

__all__ = ["policies"]


@click.command()
def policies() -> None:
    """List all policies, with their sources and settings."""
    from holdfast.policies import registry

    table = Table(box=None, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for heading in ("decides", "what it does", "source", "how it differs"):
        table.add_column(heading, overflow="fold")
    table.add_column("settings and defaults", no_wrap=True)
    for spec in registry.policy_specs():
        cells = (_decides(spec.name), spec.summary, spec.source, spec.differs)
        table.add_row(spec.name, *cells, _settings(spec.settings))
    decided = {
        "requests, in a gateway": registry.REQUEST_POLICIES.specs(),
        "routing, in a gateway": registry.ROUTING_POLICIES.specs(),
        "tool calls, in the MCP proxy": registry.CALL_POLICIES.specs(),
    }
    for what, specs in decided.items():
        for spec in specs:
            cells = (what, spec.summary, spec.source, spec.differs)
            table.add_row(spec.name, *cells, _settings(spec.settings))
    console = Console()
    console.print(table)
    console.print(
        "\nNames join with +: cachewise+working-set evicts as one and admits as the other."
        "\nSettings follow a name: continuum:eta=0.5:min_samples=50."
        "\nPolicies about requests and routing stand in the file of `holdfast gateway --policies`,"
        "\nthose about tool calls in that of `holdfast mcp-proxy --policies`."
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


def _settings(kind: type[msgspec.Struct] | None) -> str:
    """A policy's settings with their defaults, one a line."""
    fields = msgspec.structs.fields(kind) if kind else ()
    return "\n".join(f"{field.name}={field.default}" for field in fields)
