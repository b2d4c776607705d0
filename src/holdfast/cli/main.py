"""The `holdfast` command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

import click

from holdfast.cli.compress import compress
from holdfast.cli.dashboards import dashboards
from holdfast.cli.demo import demo
from holdfast.cli.explain import explain
from holdfast.cli.gateway import gateway
from holdfast.cli.mcp_proxy import mcp_proxy
from holdfast.cli.plan import plan
from holdfast.cli.policies import policies
from holdfast.cli.pool import pool
from holdfast.cli.profile import profile
from holdfast.cli.replay import replay
from holdfast.cli.serve import serve
from holdfast.cli.simulate import simulate
from holdfast.cli.top import top
from holdfast.cli.traces import traces
from holdfast.errors import HoldfastError

__all__ = ["EXIT_REFUSED", "cli", "main"]

EXIT_REFUSED = 2
"""Exit status after an error that Holdfast raises on purpose; the same as for wrong usage."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("holdfast"), prog_name="holdfast")
def cli() -> None:
    """Keep a coding agent's KV cache warm in stock vLLM while it is away at a tool."""


for _command in (
    *(compress, dashboards, demo, explain, gateway, mcp_proxy, plan, policies, pool),
    *(profile, replay, serve, simulate, top, traces),
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; prints an expected error and its hint, no traceback."""
    try:
        cli(args=arguments, prog_name="holdfast")
    except HoldfastError as error:
        if os.environ.get("HOLDFAST_DEBUG") == "1":
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        if error.hint is not None:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(EXIT_REFUSED)
