"""`holdfast plan`: how many of these sessions fit an engine, and its cliff."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from holdfast.cli.options import arguments_of, takes
from holdfast.cli.plan_options import PlanArguments
from holdfast.sim.profile_file import load_profile

__all__ = ["plan"]


@click.command(short_help="How many of your sessions fit an engine.")
@takes(PlanArguments)
def plan(arguments: PlanArguments) -> None:
    """Say how many of the sessions in each PATH fit an engine at once.

    And where its hit ratio collapses, what a host tier moves that to, and how many engines so many
    developers need. Takes seconds and needs no vLLM; --simulate takes minutes and needs it.
    """
    import msgspec

    from holdfast.cli.plan_sources import made_plan
    from holdfast.report.plan_text import plan_text

    profile = load_profile(arguments.profile_name)
    errors = Console(stderr=True)
    manifest_arguments = arguments_of(click.get_current_context()) | {
        "profile_name": Path(arguments.profile_name).name
    }
    made = made_plan(arguments, profile, errors, manifest_arguments)
    if arguments.is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(made), indent=1))
        return
    Console(highlight=False).print(plan_text(made))
