"""The gateway as a Ray Serve application.

`serve run holdfast.gateway.ray_app:app engines=http://HOST:8000,http://HOST:8001 open_to_all=true`

Replicas read, check and pass requests; one owner, a deployment of its own, decides for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp import web
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.gateway.app import Gateway
from holdfast.gateway.coordinator import Asked, LocalCoordinator
from holdfast.gateway.dispatch import DEFAULT_ADMISSION
from holdfast.gateway.ingress import Ingress
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.owner import Owner
from holdfast.gateway.owner_messages import EngineSeen, Known, Refused, Report, Sent
from holdfast.gateway.ray_settings import RaySettings
from holdfast.gateway.remote_coordinator import RemoteCoordinator
from holdfast.gateway.tenants import ApiKeys

__all__ = ["app"]

# A held turn counts as a request: Serve must not hold turns itself.
_MOST_ONGOING: Final = 100_000


def app(args: Mapping[str, Any]) -> serve.Application:
    """Build the application.

    Args:
        args: See `RaySettings`.

    Raises:
        ConfigError: An argument is unknown or wrong.
    """
    settings = RaySettings.parse(args)
    owner = serve.deployment(
        _OwnerDeployment,
        name="holdfast-owner",
        num_replicas=1,
        max_ongoing_requests=_MOST_ONGOING,
        logging_config={"enable_access_log": False},  # a line a report says nothing
    ).bind(settings)
    replicas = serve.deployment(
        _Replica,
        name="holdfast-gateway",
        num_replicas=settings.replicas,
        max_ongoing_requests=_MOST_ONGOING,
    )
    bound: serve.Application = replicas.bind(settings, owner)
    return bound


class _OwnerDeployment:
    """Decides for all replicas of the gateway."""

    async def __init__(self, settings: RaySettings) -> None:  # type: ignore[misc]
        engines = settings.known_engines()
        policies = settings.read_policies()
        limits, metrics = settings.limits(), GatewayMetrics()
        coordinator = LocalCoordinator(
            *(engines, limits, metrics, settings.readers(engines), policies.routing),
            *(policies.admission or DEFAULT_ADMISSION, policies.fairness),
        )
        self._owner = Owner(engines, coordinator, limits.lease_s)
        metrics.replicas = self._owner.replica_metrics
        gateway = Gateway(engines, ApiKeys({}), coordinator=coordinator, metrics=metrics)
        self._client = aiohttp.ClientSession()
        self._running = asyncio.create_task(self._owner.run(self._client))
        self._admin: web.AppRunner | None = None
        if settings.admin_port is not None:
            admin = gateway.admin_app(settings.admin_access(), self._owner.state)
            self._admin = web.AppRunner(admin, access_log=None)
            await self._admin.setup()
            await web.TCPSite(self._admin, settings.admin_host, settings.admin_port).start()

    async def place(self, replica: str, number: int, asked: Asked) -> Sent | Refused | None:
        """Wait for a request's engine and its space there."""
        return await self._owner.place(replica, number, asked)

    async def report(self, replica: str, report: Report) -> Mapping[str, EngineSeen] | None:
        """Take in a replica's report."""
        return self._owner.report(replica, report)

    async def join(self, replica: str, known: Known) -> None:
        """Take in a replica."""
        self._owner.join(replica, known)

    async def __del__(self) -> None:
        self._running.cancel()
        if self._admin is not None:
            await self._admin.cleanup()
        await self._client.close()


class _Replica:
    """Reads, checks and passes requests."""

    async def __init__(  # type: ignore[misc]
        self, settings: RaySettings, owner: DeploymentHandle
    ) -> None:
        engines = settings.known_engines()
        settings.readers(engines)  # marks those that are told their sessions
        limits, metrics = settings.limits(), GatewayMetrics()
        name = serve.get_replica_context().replica_id.unique_id
        coordinator = RemoteCoordinator(name, engines, _Link(owner), limits.lease_s, metrics)
        gateway = Gateway(
            *(engines, settings.keys(), limits, settings.engine_token()),
            policies=settings.read_policies().requests,
            coordinator=coordinator,
            metrics=metrics,
        )
        self._ingress = Ingress(gateway)
        await self._ingress.start()

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        del request
        return _Answer(self._ingress)

    async def __del__(self) -> None:
        await self._ingress.close()


class _Answer(Response):
    """An answer that an ASGI application gives."""

    def __init__(self, ingress: Ingress) -> None:
        super().__init__()
        self._ingress = ingress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._ingress(scope, receive, send)


class _Link:
    """Reaches the owner through Serve, which restarts it."""

    def __init__(self, owner: DeploymentHandle) -> None:
        self._owner = owner

    async def place(self, replica: str, number: int, asked: Asked) -> Sent | Refused | None:
        reply: Sent | Refused | None
        reply = await _given(self._owner.place.remote(replica, number, asked))
        return reply

    async def report(self, replica: str, report: Report) -> Mapping[str, EngineSeen] | None:
        seen: Mapping[str, EngineSeen] | None
        seen = await _given(self._owner.report.remote(replica, report))
        return seen

    async def join(self, replica: str, known: Known) -> None:
        await _given(self._owner.join.remote(replica, known))


async def _given(response: Any) -> Any:
    """What a call gives; it is cancelled with its caller."""
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
