"""`holdfast mcp-proxy`: an MCP server, repeated reads answered from memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from holdfast.cli.gateway import client_keys
from holdfast.cli.options import FILE, argument, option, takes
from holdfast.errors import ConfigError
from holdfast.gateway.tenants import ApiKeys

if TYPE_CHECKING:
    from holdfast.mcp_proxy.proxy import PolicyBuilder, ToolProxy

__all__ = ["mcp_proxy"]


@dataclass(frozen=True, slots=True)
class ProxyArguments:
    """Options of the command."""

    command: Annotated[tuple[str, ...], argument(nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]")]
    url: Annotated[
        str | None, option("--url", help="A server reached by streamable HTTP, instead of COMMAND.")
    ]
    ttl_s: Annotated[
        float,
        option(
            "--ttl-s",
            type=click.FloatRange(min=0.0, min_open=True),
            default=300.0,
            show_default=True,
            help="Forget a result after so many seconds.",
        ),
    ]
    max_mib: Annotated[
        int | None,
        option(
            "--max-mib",
            type=click.IntRange(min=1),
            help="Remember so many MiB of a session's results at most.  [default: 64]",
        ),
    ]
    always: Annotated[
        tuple[str, ...],
        option(
            "--always",
            multiple=True,
            metavar="TOOL",
            help="A read-only tool that depends on nothing but the server's own data.",
        ),
    ]
    never: Annotated[
        tuple[str, ...],
        option("--never", multiple=True, metavar="TOOL", help="A tool to remember nothing of."),
    ]
    is_speculating: Annotated[
        bool,
        option(
            "--speculate",
            is_flag=True,
            help="Make read-only calls before the client asks for them, while that saves time.",
        ),
    ]
    waste_weight: Annotated[
        float | None,
        option(
            "--waste-weight",
            type=click.FloatRange(min=0.0),
            help="Seconds saved that a second of the server's work for nothing may cost, with "
            "--speculate.  [default: 0.25]",
        ),
    ]
    policies_path: Annotated[
        Path | None,
        option(
            "--policies",
            type=FILE,
            metavar="FILE",
            help="TOML file with a table for each call policy, instead of the three above.",
        ),
    ]
    port: Annotated[
        int | None,
        option(
            "--port",
            type=click.IntRange(0, 65535),
            help="Serve by streamable HTTP on this port, instead of standard input and output; "
            "0 takes a free one.",
        ),
    ]
    host: Annotated[
        str, option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
    ]
    hosts: Annotated[
        tuple[str, ...],
        option(
            "--allow-host",
            multiple=True,
            metavar="NAME",
            help="A name by which clients call this address, with --port.",
        ),
    ]
    origins: Annotated[
        tuple[str, ...],
        option(
            "--allow-origin",
            multiple=True,
            metavar="ORIGIN",
            help="An origin of pages that may call it, such as http://localhost:6274.",
        ),
    ]
    keys_path: Annotated[
        Path | None,
        option(
            "--api-keys",
            type=FILE,
            metavar="FILE",
            help="Lines of KEY TENANT, with --port; requests without a key are refused.",
        ),
    ]
    metrics_port: Annotated[
        int | None,
        option(
            "--metrics-port",
            type=click.IntRange(0, 65535),
            help="Port for /metrics, on 127.0.0.1 only.  [default: none]",
        ),
    ]


@click.command(name="mcp-proxy", context_settings={"ignore_unknown_options": False})
@takes(ProxyArguments)
def mcp_proxy(options: ProxyArguments) -> None:
    """Serve the tools of an MCP server on standard input and output, or by HTTP.

    Calls of read-only tools are answered from memory until something is changed through the
    server, or a file that the call names is changed by anyone. All else passes unchanged.
    """
    if bool(options.command) == bool(options.url):
        raise ConfigError("give either --url or a command", hint="holdfast mcp-proxy -- COMMAND")
    keys = _keys(options)
    try:
        import anyio
        import httpx2

        from holdfast.mcp_proxy.proxy import serve_stdio
    except ImportError as error:
        raise ConfigError(
            f"mcp-proxy needs the package {error.name}", hint="pip install 'holdfast[mcp]'"
        ) from error
    proxy = _proxy(options)
    _start_metrics(proxy, options.metrics_port)
    serve: Callable[[], Awaitable[None]] = partial(
        serve_stdio, proxy, lambda is_client_gone: _ended(proxy, is_client_gone)
    )
    if options.port is not None:
        serve = _http(options, options.port, proxy, keys)
    try:
        anyio.run(serve)
    except (OSError, ExceptionGroup) as error:
        cause = _first(error)
        if not isinstance(cause, (OSError, httpx2.TransportError)):
            raise
        reason = getattr(cause, "strerror", None) or str(cause)
        server = options.url or options.command[0]
        raise ConfigError(f"{server} cannot be reached or started: {reason}") from error
    if options.port is not None:
        click.echo(_summary(proxy), err=True)


def _proxy(options: ProxyArguments) -> ToolProxy:
    from holdfast.mcp_proxy.proxy import ToolProxy, command_opener, url_opener
    from holdfast.mcp_proxy.session_calls import ResultRules

    rules = ResultRules(
        ttl_s=options.ttl_s, always=frozenset(options.always), never=frozenset(options.never)
    )
    opener = url_opener(options.url) if options.url else command_opener(options.command)
    return ToolProxy(opener, _policies(options), rules)


def _policies(options: ProxyArguments) -> PolicyBuilder:
    from holdfast.mcp_proxy.policy_file import build_policies, read_policies

    flags = {
        "--max-mib": options.max_mib,
        "--speculate": options.is_speculating or None,
        "--waste-weight": options.waste_weight,
    }
    if options.policies_path is not None:
        for name, value in flags.items():
            if value is not None:
                raise ConfigError(f"{name} and --policies both set policies", hint="keep one")
        return read_policies(options.policies_path)
    memory = {} if options.max_mib is None else {"max_mib": options.max_mib}
    tables: dict[str, dict[str, object]] = {"result-memory": {**memory}}
    if options.is_speculating:
        weight = options.waste_weight
        tables["speculation"] = {} if weight is None else {"waste_weight": weight}
    return partial(build_policies, tables)


def _http(
    options: ProxyArguments, port: int, proxy: ToolProxy, keys: ApiKeys
) -> Callable[[], Awaitable[None]]:
    from holdfast.mcp_proxy.http_serving import Listening, serve_http

    where = Listening(options.host, port, options.hosts, options.origins)
    return partial(
        serve_http,
        proxy,
        keys.tenant_of,
        where,
        lambda url: click.echo(f"mcp-proxy ready at {url}"),
    )


def _keys(options: ProxyArguments) -> ApiKeys:
    """The clients' keys; checks that all options for HTTP go with --port."""
    if options.port is None:
        for name, is_given in (
            ("--api-keys", options.keys_path is not None),
            ("--allow-host", bool(options.hosts)),
            ("--allow-origin", bool(options.origins)),
        ):
            if is_given:
                raise ConfigError(f"{name} is for serving by HTTP", hint="give --port as well")
        return ApiKeys({})
    return client_keys(options.keys_path, options.host)


def _start_metrics(proxy: ToolProxy, port: int | None) -> None:
    if port is None:
        return
    from holdfast.mcp_proxy.metrics import start_metrics

    try:
        port = start_metrics(proxy, port)
    except OSError as error:
        raise ConfigError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    click.echo(f"metrics at http://127.0.0.1:{port}/metrics", err=True)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _ended(proxy: ToolProxy, is_client_gone: bool) -> None:
    click.echo(_summary(proxy), err=True)
    if is_client_gone:
        return
    click.echo("error: the MCP server has ended", err=True)
    os._exit(1)


def _summary(proxy: ToolProxy) -> str:
    counts, early = proxy.call_counts, proxy.early_counts
    text = (
        f"answered {counts.answered} of {counts.calls} tool calls from memory and saved "
        f"{counts.saved_s:.1f} s; {counts.changes} calls may have changed something, "
        f"{counts.outdated} results were dropped as files had changed"
    )
    if early is None:
        return text
    return (
        f"{text}\nmade {early.started} calls early: {early.used} were used, {early.late} were "
        f"asked for on their way, {early.wasted} were wasted; clients waited {early.saved_s:.1f} s "
        f"less, the server worked {early.wasted_s:.1f} s for nothing"
    )
