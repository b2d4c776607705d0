"""A stand-in for an engine's HTTP endpoint, in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from holdfast.traces.record import Session, Turn

Behaviour = Callable[["StubEngine", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass
class StubEngine:
    """Answers `/v1/completions` with chosen behaviours, and keeps the requests."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    num_live: int = 0
    most_live: int = 0
    metrics: str | None = None
    models: str = '{"data": [{"id": "stub"}]}'
    behaviours: list[Behaviour] = field(default_factory=list)
    token_interval_s: float = 0.0
    cached_tokens: int | None = None

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.num_live += 1
        self.most_live = max(self.most_live, self.num_live)
        try:
            behave = self.behaviours.pop(0) if self.behaviours else stream_answer
            return await behave(self, request, body)
        finally:
            self.num_live -= 1

    async def list_models(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.models, content_type="application/json")

    async def show_metrics(self, _request: web.Request) -> web.Response:
        if self.metrics is None:
            raise web.HTTPNotFound
        return web.Response(text=self.metrics)


async def opened(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def send(response: web.StreamResponse, data: object) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    await response.write(f"data: {text}\n\n".encode())


async def send_token(response: web.StreamResponse) -> None:
    await send(response, {"choices": [{"index": 0, "text": "x", "finish_reason": None}]})


async def stream_answer(
    engine: StubEngine, request: web.Request, body: dict[str, Any]
) -> web.StreamResponse:
    response = await opened(request)
    for _ in range(body["max_tokens"]):
        await asyncio.sleep(engine.token_interval_s)
        await send_token(response)
    usage: dict[str, Any] = {
        "prompt_tokens": len(body["prompt"]),
        "completion_tokens": body["max_tokens"],
    }
    if engine.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": engine.cached_tokens}
    await send(response, {"choices": [], "usage": usage})
    await send(response, "[DONE]")
    return response


@pytest.fixture
async def engine() -> AsyncIterator[StubEngine]:
    stub = StubEngine()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/completions", stub.completions)
    app.router.add_get("/v1/models", stub.list_models)
    app.router.add_get("/metrics", stub.show_metrics)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    stub.url = f"http://127.0.0.1:{server.port}"
    yield stub
    await server.close()


@pytest.fixture
def behaviour() -> dict[str, Behaviour]:
    """Failures of an endpoint, by name."""

    async def refuse(
        _engine: StubEngine, _request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        return web.Response(status=500, text="out of memory")

    async def hang_up(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send_token(response)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def stop_short(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send_token(response)
        return response

    async def say_nothing(
        _engine: StubEngine, _request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async def stall(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send_token(response)
        await asyncio.sleep(60)
        return response

    async def babble(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send(response, "{not json")
        return response

    async def fail_late(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send_token(response)
        await send(response, {"error": {"message": "engine died", "code": 500}})
        await send(response, "[DONE]")
        return response

    async def answer_empty(
        _engine: StubEngine, request: web.Request, _body: dict[str, Any]
    ) -> web.StreamResponse:
        response = await opened(request)
        await send(response, "[DONE]")
        return response

    return {
        "refuse": refuse,
        "hang_up": hang_up,
        "stop_short": stop_short,
        "say_nothing": say_nothing,
        "stall": stall,
        "babble": babble,
        "fail_late": fail_late,
        "answer_empty": answer_empty,
    }


@pytest.fixture
def agent_session() -> Callable[..., Session]:
    """Sessions whose prompts grow by a block a turn, after a head that all share."""

    def build(name: str, num_turns: int = 3, *, gap_s: float = 0.0, number: int = 0) -> Session:
        first = 100 + 1000 * number
        turns = tuple(
            Turn(
                gap_s=gap_s if index else 0.0,
                prompt_tokens=64 * (3 + index) + 32,
                output_tokens=128,
                block_ids=(1, 2, *range(first, first + 1 + index)),
                trigger="tool_result" if index else "user",
                ended_by="tool" if index < num_turns - 1 else "human",
            )
            for index in range(num_turns)
        )
        return Session(name, 64, turns, "test")

    return build
