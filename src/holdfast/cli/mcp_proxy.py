"""`holdfast mcp-proxy`: an MCP server, repeated reads answered from memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.mcp_proxy.result_memory import MemoryCounts

__all__ = ["mcp_proxy"]


@click.command(name="mcp-proxy", context_settings={"ignore_unknown_options": False})
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]")
@click.option("--url", help="A server reached by streamable HTTP, instead of COMMAND.")
@click.option(
    "--ttl-s",
    type=click.FloatRange(min=0.0, min_open=True),
    default=300.0,
    show_default=True,
    help="Forget a result after so many seconds.",
)
@click.option(
    "--max-mib",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Remember so many MiB of results at most.",
)
@click.option(
    "--always",
    "always",
    multiple=True,
    metavar="TOOL",
    help="A read-only tool that depends on nothing but the server's own data.",
)
@click.option(
    "--never", "never", multiple=True, metavar="TOOL", help="A tool to remember nothing of."
)
def mcp_proxy(
    command: tuple[str, ...],
    url: str | None,
    ttl_s: float,
    max_mib: int,
    always: tuple[str, ...],
    never: tuple[str, ...],
) -> None:
    """Serve the tools of an MCP server on standard input and output.

    Calls of read-only tools are answered from memory until something is changed through the
    server, or a file that the call names is changed by anyone. All else passes unchanged.
    """
    if bool(command) == bool(url):
        raise ConfigError("give either --url or a command", hint="holdfast mcp-proxy -- COMMAND")
    try:
        import anyio
        import httpx2

        from holdfast.mcp_proxy.proxy import serve_command, serve_url
        from holdfast.mcp_proxy.result_memory import MemoryLimits
    except ImportError as error:
        raise ConfigError(
            f"mcp-proxy needs the package {error.name}", hint="pip install 'holdfast[mcp]'"
        ) from error
    limits = MemoryLimits(
        ttl_s=ttl_s,
        max_bytes=max_mib * 2**20,
        always=frozenset(always),
        never=frozenset(never),
    )
    serve: Callable[[], Awaitable[None]] = (
        partial(serve_url, url, limits, _ended)
        if url
        else partial(serve_command, command, limits, _ended)
    )
    try:
        anyio.run(serve)
    except (OSError, ExceptionGroup) as error:
        cause = _first(error)
        if not isinstance(cause, (OSError, httpx2.TransportError)):
            raise
        reason = getattr(cause, "strerror", None) or str(cause)
        raise ConfigError(f"{url or command[0]} cannot be reached or started: {reason}") from error


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _ended(counts: MemoryCounts, is_client_gone: bool) -> None:
    click.echo(_summary(counts), err=True)
    if is_client_gone:
        return
    click.echo("error: the MCP server has ended", err=True)
    os._exit(1)


def _summary(counts: MemoryCounts) -> str:
    return (
        f"answered {counts.answered} of {counts.calls} tool calls from memory and saved "
        f"{counts.saved_s:.1f} s; {counts.changes} calls may have changed something, "
        f"{counts.outdated} results were dropped as files had changed"
    )
