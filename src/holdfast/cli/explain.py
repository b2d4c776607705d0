"""`holdfast explain`: why prompts missed the cache, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from holdfast.cli.options import argument, option, takes
from holdfast.cli.routes_token import TOKEN_FILE, routes_token
from holdfast.errors import ConfigError

__all__ = ["explain"]


@dataclass(frozen=True, slots=True)
class ExplainArguments:
    """Options of the command."""

    source: Annotated[str, argument(metavar="LOG|RECORDS|URL")]
    session: Annotated[
        str | None,
        option("--session", metavar="ID", help="Only sessions with this id or number."),
    ]
    num_sessions: Annotated[
        int,
        option(
            "--top",
            default=5,
            show_default=True,
            type=click.IntRange(0, 1000),
            help="Sessions and turns of each to show.",
        ),
    ]
    token_path: Annotated[Path | None, TOKEN_FILE]
    is_json: Annotated[bool, option("--json", is_flag=True, help="Print all as JSON.")]


@click.command()
@takes(ExplainArguments)
def explain(arguments: ExplainArguments) -> None:
    """Say why prompts missed the cache, what that cost, and what to do.

    LOG is a decision log, which `HOLDFAST_DECISION_LOG=FILE holdfast serve ...` writes; it may
    still be written. RECORDS are the turns of `holdfast replay --records FILE`, whose misses are
    told by elimination. URL is an engine such as http://127.0.0.1:8000: its sums since it started
    and, with the token of its control routes, each session's last turns and who waits now; or the
    admin port of a gateway: which of its prompts changed, what prevents that, and what its policies
    did; or the --metrics-port of an MCP proxy: what its policies did.
    """
    import msgspec
    from rich.console import Console

    from holdfast.report.explanation import explain as explained
    from holdfast.report.explanation_text import explanation_text
    from holdfast.traces.miss_log import read_misses

    if arguments.source.startswith(("http://", "https://")):
        from holdfast.bench.engine_totals import engine_explanation

        token = routes_token(arguments.token_path)
        if arguments.session is not None and token is None:
            raise ConfigError(
                "--session needs an engine's control routes, or a decision log",
                hint="give --token-file FILE, or start it with HOLDFAST_DECISION_LOG=FILE and "
                "explain FILE",
            )
        found = engine_explanation(arguments.source, token, arguments.session)
    else:
        found = explained(read_misses(Path(arguments.source)), arguments.session)
    if arguments.is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=1))
        return
    console = Console(highlight=False, soft_wrap=False)
    console.print(explanation_text(found, arguments.num_sessions))
