"""Runs the proxy's HTTP server until the process is told to end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio
import uvicorn

from holdfast.errors import ConfigError
from holdfast.mcp_proxy.http_sessions import PATH, HttpSessions, TenantOf
from holdfast.mcp_proxy.proxy import ToolProxy

__all__ = ["Listening", "serve_http"]

_SHUTDOWN_S: Final = 2
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the proxy listens, and who may call it.

    Attributes:
        host: Address.
        port: Port; 0 takes a free one.
        hosts: Names that clients may call it by, with or without a port, besides its address.
        origins: Origins of pages that may call it.
    """

    host: str
    port: int
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()


async def serve_http(
    proxy: ToolProxy, tenant_of: TenantOf, where: Listening, on_ready: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; then sessions and their servers are ended.

    Args:
        proxy: Makes the relays.
        tenant_of: The tenant of a request by its headers.
        where: Address, and who may call it.
        on_ready: Called with the URL.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    listener = _listen(where)
    with listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        names = (shown, *_LOOPBACK) if shown in _LOOPBACK else (shown,)
        hosts = [f"{name}:{port}" for name in names]
        hosts += [each for name in where.hosts for each in (name, f"{name}:*")]
        sessions = HttpSessions(proxy, tenant_of, hosts, where.origins)
        config = uvicorn.Config(
            sessions,
            log_level="warning",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        server = _Server(config)
        async with sessions.run(), anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_when_told, server)
            on_ready(f"http://{shown}:{port}{PATH}")
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; uvicorn would raise them again at its end."""
        yield


async def _stop_when_told(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            server.should_exit = True


def _listen(where: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server((where.host, where.port), family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen on {where.host}:{where.port}: {error.strerror}") from None
