"""`holdfast serve`: vLLM's own server with Holdfast inside."""

from __future__ import annotations

import os
from pathlib import Path

import click

from holdfast.config import OTHER_VARIABLES, Setting, load_config, settings, to_environ
from holdfast.policies.registry import check_deployable

__all__ = ["serve"]

_EPILOG = """\
Every other argument goes to vLLM unchanged; `holdfast serve --help=all` shows vLLM's own help,
`--help=SchedulerConfig` one group of it. Settings come from the `[holdfast]` table of the file
given with --holdfast-config, and from the environment, which wins.
"""


class _Serve(click.Command):
    """A command whose help lists Holdfast's settings."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings after the text."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Settings"):
            formatter.write_dl([(one.name, _described(one)) for one in settings()])
        with formatter.section("Other variables"):
            formatter.write_dl(list(OTHER_VARIABLES.items()))


def _described(setting: Setting) -> str:
    default = "not set" if setting.default is None else f"{setting.default}".lower()
    return f"{setting.variable}, {setting.expected}; default: {default}. {setting.description}"


@click.command(
    cls=_Serve,
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": True,
        "help_option_names": [],
    },
    epilog=_EPILOG,
    options_metavar="[--holdfast-config FILE] [--holdfast-token-file FILE]",
)
@click.option(
    "--holdfast-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with a [holdfast] table.",
)
@click.option(
    "--holdfast-token-file",
    type=click.Path(dir_okay=False),
    help="File with the token of the routes under /holdfast/v1, which are off without.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="MODEL [any vLLM argument]")
@click.pass_context
def serve(
    context: click.Context,
    holdfast_config: Path | None,
    holdfast_token_file: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Start vLLM's OpenAI-compatible server with Holdfast as its scheduler."""
    if not arguments or arguments[0] in ("-h", "--help"):
        click.echo(context.get_help())
        return
    explicit = {"routes_token_file": holdfast_token_file} if holdfast_token_file else {}
    config = load_config(holdfast_config, os.environ, explicit)
    check_deployable(config.policy)

    from holdfast.bearer_token import routes_token
    from holdfast.vllm.compaction.arguments import compaction_arguments
    from holdfast.vllm.offload.arguments import tier_arguments
    from holdfast.vllm.serve import (
        COMPACTING_SCHEDULER_CLASS,
        SCHEDULER_CLASS,
        holdfast_arguments,
        serve_vllm,
    )
    from holdfast.vllm.tiered_compaction.arguments import tiered_compaction_config

    has_routes = routes_token(config.routes_token_file, os.environ) is not None
    scheduler = SCHEDULER_CLASS if config.compact_dir is None else COMPACTING_SCHEDULER_CLASS
    ours = holdfast_arguments(arguments, has_routes=has_routes, scheduler=scheduler)
    compaction = compaction_arguments(config, arguments)
    connector = None if config.compact_dir is None else tiered_compaction_config
    engine_arguments = [*ours, *tier_arguments(config, arguments, connector), *compaction]
    # The scheduler is built in the engine core, a child process: the environment reaches it.
    os.environ.update(to_environ(config))
    serve_vllm(engine_arguments)
