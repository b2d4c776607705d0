"""The request router in real Serve deployments; Serve LLM's servers are such deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.gateway.ray.cluster import actors, cluster, ray, serve

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def servers() -> Iterator[Any]:
    """A handle of two ingress replicas, each of which routes to three servers."""
    from ray.serve.config import RequestRouterConfig

    class Server:
        def chat(self, request: dict[str, Any]) -> str:
            del request
            return str(serve.get_replica_context().replica_id.unique_id)

    class Front:
        def __init__(self, servers: Any) -> None:
            self._servers = servers

        async def ask(self, request: dict[str, Any], session_id: str) -> tuple[str, str]:
            handle = self._servers.options(session_id=session_id) if session_id else self._servers
            me = str(serve.get_replica_context().replica_id.unique_id)
            return me, await handle.chat.remote(request)

    router = "holdfast.gateway.ray_router:HoldfastRequestRouter"
    config = RequestRouterConfig(
        request_router_class=router, request_router_kwargs={"lease_s": 600.0}
    )
    with cluster():
        options = {"num_cpus": 0.1}
        server = serve.deployment(
            Server, num_replicas=3, request_router_config=config, ray_actor_options=options
        )
        front = serve.deployment(Front, num_replicas=2, ray_actor_options=options)
        yield serve.run(front.bind(server.bind()), route_prefix=None)


def request(number: int, turn: int) -> dict[str, Any]:
    said = [f"{number} {each} " * 5 for each in range(turn + 1)]
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in said]}


@pytest.mark.parametrize("has_ids", [True, False])
async def test_routers_send_a_session_to_one_server(servers: Any, has_ids: bool) -> None:
    fronts: set[str] = set()
    chosen: dict[int, str] = {}
    for turn in range(6):
        for number in range(6):
            key = f"s{number}" if has_ids else ""
            front, server = await servers.ask.remote(request(number + 10 * has_ids, turn), key)
            fronts.add(front)
            assert chosen.setdefault(number, server) == server
    assert len(fronts) == 2
    assert len(set(chosen.values())) == 3


async def test_requests_without_a_prompt_are_routed(servers: Any) -> None:
    answers = [servers.ask.remote({"model": "m"}, "") for _ in range(10)]
    assert all(server for _, server in await asyncio.gather(*answers))


async def test_sessions_of_a_dead_server_go_elsewhere(servers: Any) -> None:
    _, server = await servers.ask.remote(request(100, 0), "dead")
    ray.kill(actors("Server")[server])
    for turn in range(1, 4):
        _, found = await servers.ask.remote(request(100, turn), "dead")
        assert found != server
