"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, stream
from tests.waiting import until_async

from holdfast.gateway.app import Gateway
from holdfast.gateway.engines import Engine
from holdfast.gateway.ingress import Ingress
from holdfast.gateway.settings import GatewayLimits
from holdfast.gateway.tenants import ApiKeys

CHAT = "/v1/chat/completions"
BODY = b'{"model": "m",  "messages": [{"role": "user", "content": "a"}]}'


class Client:
    """An ASGI server's side of one request.

    Attributes:
        sent: Messages of the application.
        leaves: Set when the client goes.
    """

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)
        self.sent: list[Mapping[str, Any]] = []
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


@contextlib.asynccontextmanager
async def ingress(engine: FakeEngine) -> AsyncIterator[Ingress]:
    async with engine.running():
        served = Ingress(Gateway([Engine("e", engine.url)], ApiKeys({})))
        await served.start()
        try:
            yield served
        finally:
            await served.close()


def scope(path: str = CHAT, method: str = "POST", **others: Any) -> dict[str, Any]:
    headers = [(b"host", b"here"), (b"content-length", str(len(BODY)).encode())]
    if method == "GET":
        headers = [(b"host", b"here")]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    } | others


async def test_bodies_and_answers_pass_the_ingress_unchanged() -> None:
    events = [b"data: a\n", b"\n", b"data: \xff\x00\n\n", b"data: [DONE]\n\n"]
    engine = FakeEngine(stream(*events, pause_s=0.01))
    client = Client(BODY[:10], BODY[10:])
    async with ingress(engine) as served:
        await served(
            scope(root_path="/llm", raw_path=b"/llm" + CHAT.encode()), client.receive, client.send
        )
    assert client.sent[0]["status"] == 200
    names = [name for name, _ in client.sent[0]["headers"]]
    assert b"x-holdfast-engine" in names
    assert not {b"transfer-encoding", b"connection", b"date", b"server"} & set(names)
    assert client.body == b"".join(events)
    assert not client.sent[-1]["more_body"]
    assert engine.requests[0][0] == CHAT
    assert engine.requests[0][2] == BODY


async def test_the_ingress_passes_queries_and_requests_without_body() -> None:
    engine = FakeEngine()
    client = Client(b"")
    async with ingress(engine) as served:
        asked = scope("/v1/models", "GET", query_string=b"x=%2F&y")
        await served(asked, client.receive, client.send)
        health = Client(b"")
        await served(scope("/health", "GET"), health.receive, health.send)
    assert engine.requests[0][0] == "/v1/models?x=%2F&y"
    assert (client.sent[0]["status"], client.body) == (200, b'{"ok": 1}')
    assert health.sent[0]["status"] == 200


async def test_a_stream_passes_the_ingress_as_it_comes() -> None:
    goes_on = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        await goes_on.wait()
        return response

    client = Client(BODY)
    async with ingress(FakeEngine(answer)) as served:
        answering = asyncio.ensure_future(served(scope(), client.receive, client.send))
        await until_async(lambda: client.body == FIRST)
        goes_on.set()
        await answering


async def test_who_leaves_the_ingress_ends_the_engines_request() -> None:
    engine = FakeEngine(stream(FIRST, pause_s=300.0))
    client = Client(BODY)
    async with ingress(engine) as served:
        answering = asyncio.ensure_future(served(scope(), client.receive, client.send))
        await until_async(lambda: client.body == FIRST)
        client.leaves.set()
        await answering
        await until_async(lambda: engine.num_cancelled == 1)


async def test_an_answer_that_breaks_off_does_not_look_whole() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    client = Client(BODY)
    async with ingress(FakeEngine(answer)) as served:
        with pytest.raises(aiohttp.ClientError):
            await served(scope(), client.receive, client.send)
    assert all(message.get("more_body", True) for message in client.sent)


async def test_a_body_that_is_too_long_is_refused_before_its_end() -> None:
    engine = FakeEngine()
    async with engine.running():
        limits = GatewayLimits(body_bytes=1000)
        served = Ingress(Gateway([Engine("e", engine.url)], ApiKeys({}), limits))
        await served.start()
        client = Client(*[b"x" * 600] * 100)
        headers = [(b"transfer-encoding", b"chunked")]
        await served(scope(headers=headers), client.receive, client.send)
        await served.close()
    assert client.sent[0]["status"] == 413
