"""Serves an MCP server's tools by streamable HTTP, to several clients at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER, StreamableHTTPServerTransport
from mcp.server.transport_security import (
    RequestBodyLimitMiddleware,
    TransportSecurityMiddleware,
    TransportSecuritySettings,
)
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, UNSUPPORTED_PROTOCOL_VERSION, JSONRPCError
from mcp_types.jsonrpc import ErrorData
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from holdfast.mcp_proxy.proxy import ToolProxy
from holdfast.mcp_proxy.pump import run_relay

__all__ = ["PATH", "HttpLimits", "HttpSessions"]

logger = logging.getLogger(__name__)

PATH: Final = "/mcp"

TenantOf = Callable[[Mapping[str, str]], str | None]
"""The tenant of a request by its headers; None if its key is missing or wrong."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What clients may ask for.

    Attributes:
        idle_s: A session without a request for so long ends (s).
        max_sessions: Sessions at once (count).
        body_bytes: Longest message (bytes).
    """

    idle_s: float = 1800.0
    max_sessions: int = 256
    body_bytes: int = 4 * 2**20


class HttpSessions:
    """An ASGI application: each session has one of the server, and a memory.

    A session answers its own tenant only; to others it does not exist. Requests for a host that is
    not served, or from a page of another origin, are refused, as MCP asks against DNS rebinding.
    Versions of MCP without sessions are refused, whereupon clients agree on one with sessions.

    Args:
        proxy: Makes the relays.
        tenant_of: See `TenantOf`.
        hosts: Values of `Host` that are served; `NAME:*` stands for any port.
        origins: Values of `Origin` that are served, likewise.
        limits: See `HttpLimits`.
    """

    def __init__(
        self,
        proxy: ToolProxy,
        tenant_of: TenantOf,
        hosts: Sequence[str],
        origins: Sequence[str] = (),
        limits: HttpLimits | None = None,
    ) -> None:
        self._proxy = proxy
        self._tenant_of = tenant_of
        self._limits = limits or HttpLimits()
        self._security = TransportSecuritySettings(
            allowed_hosts=list(hosts), allowed_origins=list(origins)
        )
        self._checks = TransportSecurityMiddleware(self._security)
        self._sessions: dict[tuple[str, str], StreamableHTTPServerTransport] = {}
        self._tasks: TaskGroup | None = None
        self._limited = RequestBodyLimitMiddleware(self._serve, self._limits.body_bytes)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Let sessions live within this context; its end ends them."""
        async with anyio.create_task_group() as self._tasks:
            yield
            self._tasks.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._limited(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        refusal = await self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        tenant = self._tenant_of(request.headers)
        if tenant is None:
            answer = _error(401, "the API key is missing or wrong")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        number = request.headers.get(MCP_SESSION_ID_HEADER)
        if number is None:
            await self._open(tenant, scope, receive, send)
            return
        transport = self._sessions.get((tenant, number))
        if transport is None:
            await _error(404, "Session not found")(scope, receive, send)
            return
        await transport.handle_request(scope, receive, send)

    async def _refusal(self, request: Request) -> Response | None:
        if request.url.path.rstrip("/") != PATH:
            return _error(404, f"MCP is served at {PATH}")
        refusal = await self._checks.validate_request(request)
        version = request.headers.get(MCP_PROTOCOL_VERSION_HEADER)
        if refusal is None and version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return _error(
                *(400, "Unsupported protocol version", UNSUPPORTED_PROTOCOL_VERSION),
                data={"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": version},
            )
        return refusal

    async def _open(self, tenant: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a session and serve the request that opens it; any but `initialize` fails."""
        assert self._tasks is not None
        if len(self._sessions) >= self._limits.max_sessions:
            await _error(503, "Too many open sessions", INTERNAL_ERROR)(scope, receive, send)
            return
        number = uuid4().hex
        transport = StreamableHTTPServerTransport(
            number, security_settings=self._security, idle_timeout=self._limits.idle_s
        )
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._sessions[tenant, number] = transport
        try:
            await self._tasks.start(self._live, tenant, number, transport)
        except (OSError, ExceptionGroup) as error:
            logger.warning("the MCP server cannot be started: %s", _first(error))
            answer = _error(502, "The MCP server cannot be started", INTERNAL_ERROR)
            await answer(scope, receive, send)
            return
        try:
            await transport.handle_request(scope, receive, watch)
        finally:
            if not 200 <= status < 300:
                await self._close(tenant, number, transport)

    async def _live(
        self,
        tenant: str,
        number: str,
        transport: StreamableHTTPServerTransport,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run a session; its end is not that of others."""
        is_open = False
        try:
            async with self._proxy.open_server() as to_server, transport.connect() as to_client:
                task_status.started()
                is_open = True
                assert transport.idle_scope is not None
                with transport.idle_scope, self._proxy.relay(tenant) as relay:
                    await run_relay(to_client, to_server, relay)
        except (OSError, ExceptionGroup) as error:
            if not is_open:
                raise
            logger.warning("a session has ended: %s", _first(error))
        finally:
            await self._close(tenant, number, transport)

    async def _close(
        self, tenant: str, number: str, transport: StreamableHTTPServerTransport
    ) -> None:
        self._sessions.pop((tenant, number), None)
        if not transport.is_terminated:
            with anyio.CancelScope(shield=True):
                await transport.terminate()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _error(status: int, message: str, code: int = INVALID_REQUEST, data: object = None) -> Response:
    error = JSONRPCError(
        jsonrpc="2.0", id=None, error=ErrorData(code=code, message=message, data=data)
    )
    body = error.model_dump_json(by_alias=True, exclude_unset=True)
    return Response(body, status, media_type="application/json")
