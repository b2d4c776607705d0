"""`holdfast plan`: how many of these sessions fit an engine, and its cliff."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from holdfast.cli.options import arguments_of, takes
from holdfast.cli.plan_options import PlanArguments

__all__ = ["plan"]


@click.command(short_help="How many of your sessions fit an engine.")
@takes(PlanArguments)
def plan(arguments: PlanArguments) -> None:
    """Say how many of these sessions fit an engine at once.

    And where its hit ratio collapses, what a host tier moves that to, and how many engines so many
    developers need. PATH is a file of traces, a directory of them, or a decision log; STUDY is what
    `holdfast traces study --json` wrote; URL is a running engine, such as http://127.0.0.1:8000:
    the plan is then of its own turns, sizes and measured speed. Takes seconds and needs no vLLM;
    --simulate takes minutes and needs it.
    """
    import msgspec

    from holdfast.cli.plan_inputs import is_url
    from holdfast.cli.plan_sources import made_plan
    from holdfast.report.page import require_plots
    from holdfast.report.plan_page import write_plan_html
    from holdfast.report.plan_text import plan_text

    if arguments.html_path is not None:
        require_plots()
    errors = Console(stderr=True)
    manifest_arguments = arguments_of(click.get_current_context()) | {
        "paths": [one if is_url(one) else Path(one).name for one in arguments.paths],
        "profile_name": arguments.profile_name and Path(arguments.profile_name).name,
    }
    made = made_plan(arguments, errors, manifest_arguments)
    if arguments.html_path is not None:
        write_plan_html(arguments.html_path, made)
    if arguments.is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(made), indent=1))
        return
    Console(highlight=False).print(plan_text(made))
