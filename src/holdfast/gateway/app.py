"""The gateway's two servers: one for clients, one for operators."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest

from holdfast.core.tenants import Fairness
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.audit_log import AuditLog
from holdfast.gateway.dispatch import DEFAULT_ADMISSION
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.forwarding import Forwarder
from holdfast.gateway.guarded_routing import GuardedRouting
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.openapi import clients_document, operators_document
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.shared_origins import SharedOrigins
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routers.kv_routing import KvRouting
from holdfast.policies.routing import RoutingPolicy

__all__ = ["Gateway"]

logger = logging.getLogger(__name__)

# Servers close idle connections (vLLM after 5 s); a request sent at that moment is lost.
_KEEP_ALIVE_S: Final = 2.0
_BUFFER_BYTES: Final = 1 << 16
_PROBE_TIMEOUT_S: Final = 2.0
_CACHE_INFO = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_ADMITS: Final = "\nholdfast_"  # a metric of `holdfast serve`
_STARTED = re.compile(r"^process_start_time_seconds\S* (\S+)", re.MULTILINE)


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
        origins: What other gateways before these engines know; None if there is no other.
        fairness: How tenants share those engines.

    Attributes:
        metrics: What was counted.
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
        origins: SharedOrigins | None = None,
        fairness: Fairness | None = None,
    ) -> None:
        self.metrics = GatewayMetrics()
        self._engines = engines
        self._keys = keys
        self._limits = limits or GatewayLimits()
        self._engine_key = engine_key
        self._readers = readers
        self._origins = origins
        if audit is not None:
            audit.count_in(self.metrics.audit_lost)
        self._policies = RequestPolicies(policies, self.metrics, audit)
        self._routing = GuardedRouting(routing or KvRouting(), self.metrics)
        self._admission = admission
        self._fairness = fairness
        self._started_at: dict[Engine, str] = {}

    def app(self) -> web.Application:
        """The application for clients; it probes the engines while it runs."""
        app = web.Application(client_max_size=self._limits.body_bytes)
        app.cleanup_ctx.append(self._connected)
        app.router.add_get("/health", self._health)
        app.router.add_get("/openapi.json", partial(_document, clients_document()))
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    def admin_app(self, access: AdminAccess | None = None) -> web.Application:
        """The application for operators: metrics and the state of engines.

        Args:
            access: Who may read it; None lets everyone.
        """
        app = web.Application(middlewares=[(access or AdminAccess()).guard()])
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/health", self._health)
        app.router.add_get("/engines", self._engine_states)
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
                *(self._engines, client, self._keys, self._limits, self.metrics),
                policies=self._policies,
                routing=self._routing,
                admission=self._admission,
                fairness=self._fairness,
                engine_key=self._engine_key,
                origins=self._origins,
            )
            tasks = [asyncio.create_task(self._probe_all(client))]
            tasks += [asyncio.create_task(reader.run()) for reader in self._readers]
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
        text = generate_latest(self.metrics.registry)
        return web.Response(body=text, content_type="text/plain", charset="utf-8")

    async def _engine_states(self, request: web.Request) -> web.Response:
        del request
        dispatcher = self._forwarder.dispatcher
        states = [
            {
                "name": engine.name,
                "url": engine.url,
                "up": engine.is_up,
                "requests_in_flight": engine.num_in_flight,
                "queued_bytes": engine.queued_bytes,
                "resident_bytes": engine.residency.held_bytes,
                "in_use_bytes": dispatcher.placements.in_use_bytes(engine),
                "requests_held": dispatcher.held(engine)[0],
                "kv_tokens": engine.kv_tokens,
                "kv_events": engine.events is not None and engine.events.is_current,
            }
            for engine in self._engines
        ]
        content = {"sessions": len(dispatcher.placements), "routing": self._routing.name}
        content["admission"] = self._admission if dispatcher.holds else None
        content["tenants"] = [
            {
                "name": tenant.name,
                "weight": tenant.weight,
                "served_s": tenant.served_s,
                "requests": tenant.num_turns,
                "requests_held": tenant.num_waiting,
            }
            for tenant in dispatcher.tenants.known()
        ]
        return web.json_response(content | {"engines": states})

    # Probes.

    async def _probe_all(self, client: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.gather(*(self._probe(client, engine) for engine in self._engines))
            await asyncio.sleep(self._limits.probe_s)

    async def _probe(self, client: aiohttp.ClientSession, engine: Engine) -> None:
        """Find out whether an engine answers, has restarted, and how large its cache is."""
        was_up = engine.is_up
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
        try:
            async with client.get(f"{engine.url}/health", timeout=timeout) as answer:
                is_up = answer.status == 200
            async with client.get(f"{engine.url}/metrics", timeout=timeout) as answer:
                self._take_metrics(engine, await answer.text() if answer.status == 200 else "")
        except TimeoutError:
            is_up = was_up  # a busy engine answers late; a dead one refuses
        except (aiohttp.ClientError, OSError, UnicodeDecodeError):
            is_up = False
        if was_up and not is_up:
            self._forwarder.engine_lost(engine)
        elif is_up and not was_up:
            logger.info("engine %s answers again", engine.name)
            engine.is_up = True
        self.metrics.engines_up.labels(engine.name).set(engine.is_up)

    def _take_metrics(self, engine: Engine, text: str) -> None:
        if found := _CACHE_INFO.search(text):
            labels = dict(_LABEL.findall(found[1]))
            sizes = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            engine.admits = _ADMITS in text
            if all(size.isdecimal() for size in sizes):
                engine.learn_capacity(int(sizes[0]) * int(sizes[1]))
        if found := _STARTED.search(text):
            before = self._started_at.setdefault(engine, found[1])
            if before != found[1]:
                self._started_at[engine] = found[1]
                self._forwarder.engine_restarted(engine)


async def _document(content: dict[str, Any], request: web.Request) -> web.Response:
    del request
    return web.json_response(content)
