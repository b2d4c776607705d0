"""The gateway's two servers: one for clients, one for operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp import web

from holdfast.core.tenants import Fairness
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.audit_log import AuditLog
from holdfast.gateway.coordinator import Coordinator, LocalCoordinator
from holdfast.gateway.dispatch import DEFAULT_ADMISSION
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.forwarding import Forwarder
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.openapi import clients_document, operators_document
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routing import RoutingPolicy

__all__ = ["Gateway"]

# Servers close idle connections (vLLM after 5 s); a request sent at that moment is lost.
_KEEP_ALIVE_S: Final = 2.0
_BUFFER_BYTES: Final = 1 << 16


class Gateway:
    """One endpoint for several engines.

    Args:
        engines: At least one.
        keys: API keys of clients.
        limits: What requests may ask.
        engine_key: Bearer token for the engines; None passes the client's.
        readers: Read KV events of those engines that report them.
        policies: What they may change about requests, asked in this order.
        routing: Chooses engines; None takes `KvRouting`.
        admission: Name of the policy that admits turns to engines without an admission of their
            own.
        audit: Takes down their decisions; None keeps no log.
        fairness: How tenants share those engines.
        coordinator: Makes the decisions for which `readers`, `routing`, `admission` and `fairness`
            are, in place of one of its own; probes engines, or knows who does.
        metrics: Where to count; None takes counts of its own.

    Attributes:
        metrics: What was counted.
        coordinator: Decides where requests go, and when.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        keys: ApiKeys,
        limits: GatewayLimits | None = None,
        engine_key: str | None = None,
        readers: Sequence[KvEventReader] = (),
        policies: Sequence[RequestPolicy] = (),
        routing: RoutingPolicy | None = None,
        admission: str = DEFAULT_ADMISSION,
        audit: AuditLog | None = None,
        fairness: Fairness | None = None,
        coordinator: Coordinator | None = None,
        metrics: GatewayMetrics | None = None,
    ) -> None:
        self.metrics = metrics or GatewayMetrics()
        self._engines = engines
        self._keys = keys
        self._limits = limits or GatewayLimits()
        self._engine_key = engine_key
        if audit is not None:
            audit.count_in(self.metrics.audit_lost)
        self._policies = RequestPolicies(policies, self.metrics, audit)
        self.coordinator = coordinator or LocalCoordinator(
            *(engines, self._limits, self.metrics, readers, routing, admission, fairness)
        )

    def app(self) -> web.Application:
        """The application for clients; it probes the engines while it runs."""
        app = web.Application(client_max_size=self._limits.body_bytes)
        app.cleanup_ctx.append(self._connected)
        app.router.add_get("/health", self._health)
        app.router.add_get("/openapi.json", partial(_document, clients_document()))
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    def admin_app(
        self, access: AdminAccess | None = None, state: Callable[[], dict[str, Any]] | None = None
    ) -> web.Application:
        """The application for operators: metrics and the state of engines.

        Args:
            access: Who may read it; None lets everyone.
            state: Gives the state of engines; None takes what the coordinator knows.
        """
        known = self.coordinator.state if state is None else state
        app = web.Application(middlewares=[(access or AdminAccess()).guard()])
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/health", self._health)
        app.router.add_get("/engines", partial(_states, known))
        app.router.add_get("/openapi.json", partial(_document, operators_document()))
        return app

    async def _connected(self, app: web.Application) -> AsyncIterator[None]:
        del app
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.connect_s, sock_read=self._limits.stall_s
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            read_bufsize=_BUFFER_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as client:
            self._forwarder = Forwarder(
                *(client, self._keys, self._limits, self.metrics, self._policies),
                *(self.coordinator, self._engine_key),
            )
            work = self.coordinator.run(client), self._forwarder.changes.run()
            tasks = [asyncio.create_task(each) for each in work]
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        return await self._forwarder.handle(request)

    # Operators.

    async def _health(self, request: web.Request) -> web.Response:
        del request
        is_up = any(engine.is_up for engine in self._engines)
        return web.Response(status=200 if is_up else 503)

    async def _metrics_text(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=self.metrics.text(), content_type="text/plain", charset="utf-8")


async def _states(state: Callable[[], dict[str, Any]], request: web.Request) -> web.Response:
    del request
    return web.json_response(state())


async def _document(content: dict[str, Any], request: web.Request) -> web.Response:
    del request
    return web.json_response(content)
