"""A Ray cluster of this machine, and the gateway on it before two engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from tests.gateway.fake_engine import FakeEngine
from tests.waiting import LONGEST_S

SLOW_MACHINE = {
    # Where all processors are busy, Serve's first check of its proxy fails after five seconds, and
    # workers, which are started with less priority, do not register in time.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_AUTH_MODE": "disabled",  # or Ray writes a token into the home directory
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update(SLOW_MACHINE)

ray = pytest.importorskip("ray", reason="make test-ray installs it")
serve = pytest.importorskip("ray.serve")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def cluster() -> Iterator[int]:
    """A cluster with Serve; yields Serve's port."""
    port = free_port()
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


def actors(deployment: str) -> dict[str, Any]:
    """The living replicas of a deployment, by their ids."""
    named = ray.util.list_named_actors(all_namespaces=True)
    found = {}
    for each in named:
        if f"#{deployment}#" in each["name"]:
            with contextlib.suppress(ValueError):
                actor = ray.get_actor(each["name"], namespace=each["namespace"])
                found[each["name"].rpartition("#")[2]] = actor
    return found


@dataclass
class RayGateway:
    """The gateway on Ray.

    Attributes:
        url: For clients.
        admin_url: For operators.
        engines: What is asked there.
        client: Asks.
    """

    url: str
    admin_url: str
    engines: list[FakeEngine]
    client: aiohttp.ClientSession

    async def post(self, path: str, **sent: Any) -> tuple[int, bytes, str]:
        """Status, body and receipt of an answer."""
        async with self.client.post(self.url + path, **sent) as answer:
            receipt = answer.headers.get("X-Holdfast-Engine", "")
            return answer.status, await answer.read(), receipt

    async def state(self) -> dict[str, Any]:
        """What the owner knows; empty while there is none."""
        try:
            async with self.client.get(f"{self.admin_url}/engines") as answer:
                return dict(await answer.json())
        except aiohttp.ClientError:
            return {}

    async def num_in_flight(self) -> int | None:
        """Requests in flight as the owner counts them; None while there is none."""
        state = await self.state()
        return sum(each["requests_in_flight"] for each in state["engines"]) if state else None

    async def counts(self, name: str) -> dict[str, float]:
        """A metric by replica."""
        found: dict[str, float] = {}
        try:
            async with self.client.get(f"{self.admin_url}/metrics") as answer:
                text = await answer.text()
        except aiohttp.ClientError:
            return {}
        for line in text.splitlines():
            if line.startswith(f"holdfast_gateway_{name}") and 'replica="' in line:
                replica = line.partition('replica="')[2].partition('"')[0]
                found[replica] = found.get(replica, 0.0) + float(line.rpartition(" ")[2])
        return found


@contextlib.asynccontextmanager
async def ray_gateway(port: int, **settings: Any) -> AsyncIterator[RayGateway]:
    """The gateway with two replicas before two engines."""
    from holdfast.gateway.ray_app import app

    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(FakeEngine().running()) for _ in range(2)]
        admin_port = free_port()
        given = {
            "engines": [engine.url for engine in engines],
            "open_to_all": True,
            "admin_port": admin_port,
            **settings,
        }
        await asyncio.to_thread(serve.run, app(given))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2 * LONGEST_S))
        )
        admin_url = f"http://127.0.0.1:{admin_port}"
        yield RayGateway(f"http://127.0.0.1:{port}", admin_url, engines, client)
        await asyncio.to_thread(serve.delete, "default")
