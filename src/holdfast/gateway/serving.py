"""Runs the gateway's servers until the process is told to end."""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from holdfast.errors import ConfigError
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.app import Gateway

__all__ = ["Listening", "runner_of", "serve"]

_SHUTDOWN_S: Final = 10.0
_READ_BYTES: Final = 1 << 20  # of a body before its connection is paused: most are shorter
_IDLE_S: Final = 75.0  # until a connection is closed: without a request, or amid the head of one
# Python collects after 700 new objects, which is each request: a tenth of the time goes there. No
# body waits for it (tests/gateway/test_cycles.py).
_COLLECTED_AFTER: Final = (10_000, 20, 100)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the servers listen.

    Attributes:
        host: Address for clients.
        port: Port for clients; 0 takes a free one.
        admin_port: Port for operators; None starts no such server.
        tls: Certificate for clients; None serves plain HTTP.
        admin_host: Address for operators.
        admin: Who may read there.
    """

    host: str
    port: int
    admin_port: int | None = None
    tls: ssl.SSLContext | None = None
    admin_host: str = "127.0.0.1"
    admin: AdminAccess = field(default_factory=AdminAccess)


async def serve(gateway: Gateway, where: Listening, on_ready: Callable[[str, str], None]) -> None:
    """Serve until SIGINT or SIGTERM; open answers get ten seconds to end.

    Meanwhile Python looks for unreachable cycles in this process less often.

    Args:
        gateway: What is served.
        where: Addresses.
        on_ready: Called with the clients' and the operators' address ("" for none).

    Raises:
        ConfigError: An address cannot be listened on.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    runner = runner_of(gateway)
    admin = web.AppRunner(gateway.admin_app(where.admin), access_log=None)
    try:
        url = await _listen(runner, where.host, where.port, where.tls)
        admin_url = ""
        if where.admin_port is not None:
            admin_url = await _listen(admin, where.admin_host, where.admin_port, None)
        on_ready(url, admin_url)
        with _rare_collections():
            await stopped.wait()
    finally:
        await admin.cleanup()
        await runner.cleanup()


@contextmanager
def _rare_collections() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def runner_of(gateway: Gateway) -> web.AppRunner:
    """What runs the application for clients, wherever it listens."""
    return web.AppRunner(
        gateway.app(),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_S,
        auto_decompress=True,
        keepalive_timeout=_IDLE_S,
        read_bufsize=_READ_BYTES,
    )


async def _listen(runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None) -> str:
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"{'http' if tls is None else 'https'}://{shown}:{bound[1]}"
