"""`holdfast top`: a live view of engines on a terminal."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
from rich.console import Console

from holdfast.cli.options import argument, option, takes
from holdfast.cli.routes_token import TOKEN_FILE, routes_token
from holdfast.core.engine_view import EngineView, total_view
from holdfast.errors import ConfigError, EndpointError

__all__ = ["top"]

_DEFAULT_URL = "http://127.0.0.1:8000"
_PIPE_COLUMNS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class TopArguments:
    """The arguments of `holdfast top`.

    Attributes:
        urls: Addresses of engines.
        token_path: File with the token of their control routes.
        interval_s: Time between two looks (s).
        once: Whether to print one frame.
        is_json: Whether to print one frame as JSON.
    """

    urls: Annotated[tuple[str, ...], argument(nargs=-1, metavar="[URL]...")]
    token_path: Annotated[Path | None, TOKEN_FILE]
    interval_s: Annotated[
        float,
        option(
            "--interval",
            type=click.FloatRange(min=0.2, max=3600),
            default=2.0,
            show_default=True,
            metavar="S",
            help="Seconds between two looks.",
        ),
    ]
    once: Annotated[
        bool, option("--once", is_flag=True, help="Print one frame after one interval, and end.")
    ]
    is_json: Annotated[bool, option("--json", is_flag=True, help="The same, as JSON.")]


@click.command(short_help="A live view of one engine or several.")
@takes(TopArguments)
def top(arguments: TopArguments) -> None:
    """Show sessions, KV blocks, hits, evictions and who waits at each URL's engine.

    Without URL: http://127.0.0.1:8000. `q` or Ctrl-C ends it. Hits and evictions are of the last
    interval; the ceiling is what an infinite cache would hit.
    """
    from holdfast.bench.engine_watch import EngineWatch

    urls = arguments.urls or (_DEFAULT_URL,)
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is no address of an engine", hint=f"for example {_DEFAULT_URL}"
            )
    token = routes_token(arguments.token_path)
    watches = [EngineWatch(url, token) for url in dict.fromkeys(urls)]
    if arguments.once or arguments.is_json or not sys.stdout.isatty():
        _print_once(watches, arguments)
        return
    try:
        from holdfast.cli.top_app import TopApp
    except ImportError as error:
        raise ConfigError(
            "a live view needs Textual", hint="pip install 'holdfast[top]', or add --once"
        ) from error
    TopApp(watches, arguments.interval_s).run()


def _print_once(watches: list[Any], arguments: TopArguments) -> None:
    """Print one frame.

    Raises:
        EndpointError: No engine could be read.
    """
    import msgspec

    from holdfast.report.engine_frame import engine_frame

    views = asyncio.run(_two_looks(watches, arguments.interval_s))
    if arguments.is_json:
        content = {"schema": "holdfast.top/1", "engines": views, "total": total_view(views)}
        click.echo(msgspec.json.format(msgspec.json.encode(content), indent=1))
    else:
        console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)
        console.print(engine_frame(views, console.width, None))
    if all(view.error for view in views):
        raise EndpointError(
            f"{views[0].url}/metrics cannot be read: {views[0].error}",
            hint="give the address of an engine, such as http://127.0.0.1:8000",
        )


async def _two_looks(watches: list[Any], interval_s: float) -> list[EngineView]:
    from holdfast.bench.engine_watch import look_at_all

    views = await look_at_all(watches)
    if all(view.error for view in views):
        return views
    await asyncio.sleep(interval_s)
    return await look_at_all(watches)
