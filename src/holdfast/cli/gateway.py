"""`holdfast gateway`: one endpoint for several engines."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from holdfast.cli.options import FILE, option, takes
from holdfast.errors import ConfigError

if TYPE_CHECKING:
    from holdfast.gateway.admin_access import AdminAccess
    from holdfast.gateway.tenants import ApiKeys

__all__ = ["client_keys", "gateway"]


@dataclass(frozen=True, slots=True)
class GatewayArguments:
    """Options of the command."""

    urls: Annotated[
        tuple[str, ...],
        option(
            "--engine",
            required=True,
            multiple=True,
            metavar="URL",
            help="Address of an engine, such as http://127.0.0.1:8000; repeat for each.",
        ),
    ]
    kv_events: Annotated[
        tuple[str, ...],
        option(
            "--kv-events",
            multiple=True,
            metavar="HOST:PORT=EVENTS[,REPLAY]",
            help="ZMQ addresses of an engine's KV events, such as "
            "127.0.0.1:8000=tcp://127.0.0.1:5557,tcp://127.0.0.1:5558; needs pyzmq.",
        ),
    ]
    host: Annotated[
        str, option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
    ]
    port: Annotated[
        int,
        option(
            "--port",
            default=8100,
            show_default=True,
            type=click.IntRange(0, 65535),
            help="Port for clients; 0 takes a free one.",
        ),
    ]
    admin_port: Annotated[
        int | None,
        option(
            "--admin-port",
            type=click.IntRange(0, 65535),
            help="Port for /metrics and /engines.  [default: none]",
        ),
    ]
    admin_host: Annotated[
        str,
        option(
            "--admin-host",
            default="127.0.0.1",
            show_default=True,
            help="Address of that port; one that others reach needs an admin token.",
        ),
    ]
    admin_token_path: Annotated[
        Path | None,
        option(
            "--admin-token-file",
            type=FILE,
            metavar="FILE",
            help="File with the bearer token that the admin port requires. HOLDFAST_ROUTES_TOKEN "
            "has the token itself.",
        ),
    ]
    has_open_metrics: Annotated[
        bool, option("--open-metrics", is_flag=True, help="Let /metrics be read without it.")
    ]
    keys_path: Annotated[
        Path | None,
        option(
            "--api-keys",
            type=FILE,
            metavar="FILE",
            help="Lines of KEY TENANT; requests without a key are refused.",
        ),
    ]
    engine_key_path: Annotated[
        Path | None,
        option(
            "--engine-key",
            type=FILE,
            metavar="FILE",
            help="File with the engines' API key, sent instead of the client's.",
        ),
    ]
    policies_path: Annotated[
        Path | None,
        option(
            "--policies",
            type=FILE,
            metavar="FILE",
            help="TOML with a table for each of the gateway's policies, by name, and its settings; "
            "see `holdfast policies`.",
        ),
    ]
    audit_path: Annotated[
        Path | None,
        option(
            "--audit-log",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Append a JSON line for each tool call that policies judge, and each request that "
            "they refuse; without prompt text.",
        ),
    ]
    certificate_path: Annotated[
        Path | None, option("--tls-cert", type=FILE, help="Certificate chain, PEM.")
    ]
    private_key_path: Annotated[
        Path | None, option("--tls-key", type=FILE, help="Its private key, PEM.")
    ]
    body_mib: Annotated[
        int,
        option(
            "--max-body-mib",
            default=64,
            show_default=True,
            type=click.IntRange(1, 4096),
            help="Longest request body.",
        ),
    ]
    lease_s: Annotated[
        float,
        option(
            "--session-lease-s",
            default=1800.0,
            show_default=True,
            type=click.FloatRange(1.0),
            help="Sessions idle for longer count as gone.",
        ),
    ]
    max_wait_ratio: Annotated[
        float,
        option(
            "--max-wait-ratio",
            default=2.0,
            show_default=True,
            type=click.FloatRange(0.0, 100.0),
            help="Hold a turn for at most so many times the engine time of what it found ahead of "
            "it; 0 holds none.",
        ),
    ]


@click.command(short_help="One endpoint for several engines.")
@takes(GatewayArguments)
def gateway(options: GatewayArguments) -> None:
    """Send each session to the engine that has its KV blocks.

    Serves the OpenAI and Anthropic APIs of the engines byte for byte, and Gemini's translated.
    Engines may be stock vLLM or `holdfast serve`. A session returns to its engine unless waiting
    there costs more than computing its prompt elsewhere. A turn for which an engine has no space is
    held for a bounded time.
    """
    from holdfast.gateway.addresses import engines_at, readers_at
    from holdfast.gateway.app import Gateway
    from holdfast.gateway.audit_log import AuditLog
    from holdfast.gateway.dispatch import DEFAULT_ADMISSION
    from holdfast.gateway.policy_file import GatewayPolicies, read_policies
    from holdfast.gateway.serving import Listening, serve
    from holdfast.gateway.settings import GatewayLimits

    engines = engines_at(options.urls)
    keys = client_keys(options.keys_path, options.host)
    engine_key = None
    if options.engine_key_path is not None:
        engine_key = _read(options.engine_key_path).strip()
    limits = GatewayLimits(
        body_bytes=options.body_mib << 20,
        lease_s=options.lease_s,
        max_wait_ratio=options.max_wait_ratio or None,
    )
    where = Listening(
        *(options.host, options.port, options.admin_port, _tls(options)),
        *(options.admin_host, _admin_access(options)),
    )
    readers = readers_at(options.kv_events, engines)
    path = options.policies_path
    policies = GatewayPolicies() if path is None else read_policies(path)
    if policies.admission is not None and limits.max_wait_ratio is None:
        raise ConfigError(
            f"--max-wait-ratio 0 holds no turn, so {policies.admission!r} would admit none",
            hint=f"leave its table out of {path}, or the option",
        )
    audit = None if options.audit_path is None else AuditLog(options.audit_path)
    app = Gateway(
        *(engines, keys, limits, engine_key, readers, policies.requests),
        routing=policies.routing,
        admission=policies.admission or DEFAULT_ADMISSION,
        audit=audit,
        fairness=policies.fairness,
    )
    serving = serve(app, where, _announce)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serving)


def client_keys(path: Path | None, host: str) -> ApiKeys:
    """The clients' keys; none is needed on loopback addresses.

    Raises:
        ConfigError: There is none for an address that others reach, or the file is wrong.
    """
    from holdfast.gateway.tenants import ApiKeys

    keys = ApiKeys({})
    if path is not None:
        keys = ApiKeys.parse(_read(path), str(path))
    if not keys and not _is_loopback(host):
        raise ConfigError(f"--host {host} lets everyone in", hint="give --api-keys FILE as well")
    return keys


def _admin_access(options: GatewayArguments) -> AdminAccess:
    """Who may read the admin port; without a token all who reach it."""
    from holdfast.bearer_token import TOKEN_VARIABLE, routes_token
    from holdfast.gateway.admin_access import AdminAccess

    path = options.admin_token_path
    token = routes_token(None if path is None else str(path), os.environ)
    if token is None and not _is_loopback(options.admin_host):
        raise ConfigError(
            f"--admin-host {options.admin_host} lets everyone read the admin port",
            hint=f"give --admin-token-file FILE as well, or set {TOKEN_VARIABLE}",
        )
    return AdminAccess(token, options.has_open_metrics)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loops of uvloop where it is installed, else asyncio's own."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


def _announce(url: str, admin_url: str) -> None:
    operators = f"; metrics at {admin_url}/metrics" if admin_url else ""
    click.echo(f"gateway ready at {url}{operators}")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(options: GatewayArguments) -> ssl.SSLContext | None:
    if options.certificate_path is None or options.private_key_path is None:
        if options.certificate_path is not options.private_key_path:
            raise ConfigError("--tls-cert and --tls-key belong together")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.certificate_path, options.private_key_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{options.certificate_path}: {error}") from None
    return context
