"""An engine without a model, for what a real one does too seldom: dying, stalling, odd bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from aiohttp import web
from tests.waiting import until_async

from holdfast.core.tenants import Fairness
from holdfast.gateway.app import Gateway
from holdfast.gateway.audit_log import AuditLog
from holdfast.gateway.coordinator import LocalCoordinator
from holdfast.gateway.engines import Engine
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import RequestPolicy
from holdfast.policies.routing import RoutingPolicy

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
FIRST = b'data: {"id": "resp_1", "choices": []}\n\n'


class FakeEngine:
    """Records requests and answers them with a function of the test's."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or self.plain
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""
        self.num_cancelled = 0
        self.num_probes = 0
        self.started = "1.0"

    async def plain(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"ok": 1}', content_type="application/json")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/health":
            return web.Response()
        if request.path == "/metrics":
            self.num_probes += 1
            return web.Response(
                text='vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
                f"process_start_time_seconds {self.started}\n"
            )
        body = await request.read()
        self.requests.append((request.path_qs, dict(request.headers), body))
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeEngine]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Die as a killed process does: no listening socket and no connection is left."""
        for site in list(self.runner.sites):
            await site.stop()
        server = self.runner.server
        for connection in [] if server is None else server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.05)
        await self.runner.cleanup()


class ServedUrl(str):
    """A gateway's address, and the gateway."""

    gateway: Gateway

    @property
    def coordinator(self) -> LocalCoordinator:
        """What decides in the gateway."""
        assert isinstance(self.gateway.coordinator, LocalCoordinator)
        return self.gateway.coordinator

    def counted(self, name: str) -> float:
        """The sum of a metric over its labels."""
        registry = self.gateway.metrics.registry
        samples = [s for m in registry.collect() for s in m.samples if s.name == name]
        return sum(sample.value for sample in samples)

    async def compared(self) -> None:
        """Wait until all prompts that were sent have been compared with the ones before."""
        await until_async(lambda: self.gateway._forwarder.changes.is_idle)


@contextlib.asynccontextmanager
async def gateway(
    *engines: FakeEngine,
    keys: ApiKeys | None = None,
    engine_key: str | None = None,
    policies: Sequence[RequestPolicy] = (),
    routing: RoutingPolicy | None = None,
    admission: str = "working-set",
    audit: AuditLog | None = None,
    fairness: Fairness | None = None,
    **limits: Any,
) -> AsyncIterator[ServedUrl]:
    """Some engines and a gateway before them; yields its address."""
    async with contextlib.AsyncExitStack() as stack:
        for engine in engines:
            await stack.enter_async_context(engine.running())
        made = partial(_gateway, engines, keys, engine_key, limits)
        others = {"admission": admission, "audit": audit, "fairness": fairness}
        served = made(policies=policies, routing=routing, **others)
        yield await stack.enter_async_context(served)


@contextlib.asynccontextmanager
async def _gateway(
    engines: Sequence[FakeEngine],
    keys: ApiKeys | None,
    engine_key: str | None,
    limits: dict[str, Any],
    **policies: Any,
) -> AsyncIterator[ServedUrl]:
    known = [Engine(f"e{number}", engine.url) for number, engine in enumerate(engines)]
    limits.setdefault("probe_s", 60.0)
    checked = keys or ApiKeys({}), GatewayLimits(**limits), engine_key
    served = Gateway(known, *checked, **policies)
    runner = web.AppRunner(served.app(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    while not all(engine.num_probes for engine in engines):
        await asyncio.sleep(0.01)
    try:
        url = ServedUrl(f"http://127.0.0.1:{runner.addresses[0][1]}")
        url.gateway = served
        yield url
    finally:
        await runner.cleanup()


def stream(*chunks: bytes, dies: bool = False, pause_s: float = 0.0) -> Answer:
    """An answer of server-sent events; one that dies breaks the connection."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(pause_s)
        if dies:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer
