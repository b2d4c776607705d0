"""Odd requests and clients that vanish: no internal error, and nothing left over."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, ServedUrl, gateway
from tests.waiting import until_async

from holdfast.gateway.api import ROUTES
from holdfast.gateway.app import Gateway

NUM_ODD = 300
NUM_VANISHING = 300
FIELDS = (
    *("model", "messages", "input", "prompt", "system", "tools", "contents", "stream"),
    *("cache_salt", "previous_response_id", "metadata", "vllm_xargs", "session_id", "parts"),
)
PATHS = [route.path.replace("*", "x") for route in ROUTES]
PATHS += ["/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent?alt=sse"]
PATHS += ["/v1beta/models/m:countTokens", "/metrics", "/v1/../metrics", "/", "/v1/models/a%2Fb"]


def odd_value(source: random.Random, depth: int = 0) -> Any:
    kinds = 6 if depth < 4 else 4
    match source.randrange(kinds):
        case 0:
            return source.choice([None, True, False, 0, -1, 1e300, 2**70])
        case 1:
            return source.choice(["", "a", "\u0000", "\ud800", "é" * 2000, "tool", "user"])
        case 2 | 3:
            return source.choice(FIELDS)
        case 4:
            return [odd_value(source, depth + 1) for _ in range(source.randrange(4))]
        case _:
            names = source.sample(FIELDS, source.randrange(4))
            return {name: odd_value(source, depth + 1) for name in names}


def odd_body(source: random.Random) -> bytes:
    names = source.sample(FIELDS, source.randrange(1, 6))
    body = json.dumps({name: odd_value(source) for name in names}).encode()
    match source.randrange(5):
        case 0:
            return body[: source.randrange(len(body))]
        case 1:
            return body.replace(b"e", source.randbytes(1))
        case _:
            return body


def leftovers(url: ServedUrl) -> tuple[float, ...]:
    names = ("requests_in_flight", "requests_held", "held_tokens")
    coordinator = url.coordinator
    kept = len(coordinator._held) + len(coordinator.dispatcher._open)
    return (*(url.counted(f"holdfast_gateway_{name}") for name in names), kept)


async def test_odd_requests_are_answered_without_an_internal_error() -> None:
    source = random.Random(1)
    engine = FakeEngine()
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        for _ in range(NUM_ODD):
            method = source.choice(["POST", "POST", "POST", "GET", "DELETE", "PUT"])
            path, body = source.choice(PATHS), odd_body(source)
            headers = {"Content-Type": "application/json", "x-session-id": "s"}
            async with client.request(method, url + path, data=body, headers=headers) as answer:
                text = await answer.read()
                assert answer.status != 500, (method, path, body, text)
        assert leftovers(url) == (0, 0, 0, 0)
    assert all(not path.startswith("/metrics") for path, _, _ in engine.requests)


async def test_a_client_that_leaves_before_the_head_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(request: web.Request, response: web.StreamResponse) -> None:
        """The connection closes, and no one is told before the head is written."""
        assert request.transport is not None
        request.transport.abort()

    def app(served: Gateway) -> web.Application:
        made = make_app(served)
        made.on_response_prepare.append(leave)
        return made

    make_app = Gateway.app
    monkeypatch.setattr(Gateway, "app", app)
    async with gateway(FakeEngine()) as url, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.post(url + "/v1/chat/completions", json={"model": "m", "messages": []})
        await until_async(lambda: leftovers(url) == (0, 0, 0, 0))
        assert url.counted("holdfast_gateway_disconnects_total") == 1
    assert not caplog.records


async def test_clients_that_vanish_leave_nothing() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        await asyncio.sleep(0.2)
        return response

    async def vanish(client: aiohttp.ClientSession, url: str, number: int) -> None:
        text = f"{number} " * 1000
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}
        async with client.post(url + "/v1/chat/completions", json=body) as answered:
            await answered.read()

    async def break_off(url: str, number: int) -> None:
        """A client that leaves in the middle of its head or its body."""
        host, _, port = url.removeprefix("http://").partition(":")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\n"
        with socket.create_connection((host, int(port))) as sent:
            sent.sendall((head + b"{" * 500)[: 2 * number])

    source = random.Random(2)
    engine = FakeEngine(answer)
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        tasks = []
        num_tasks = len(asyncio.all_tasks())
        for number in range(NUM_VANISHING):
            odd = break_off(url, number) if number % 3 == 0 else vanish(client, url, number)
            tasks.append(asyncio.create_task(odd))
            await asyncio.sleep(0.003)
            source.choice(tasks).cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until_async(lambda: leftovers(url) == (0, 0, 0, 0))
        # Not one a client: those of connections that the pool keeps.
        await until_async(lambda: len(asyncio.all_tasks()) < num_tasks + 20)
        last = asyncio.create_task(vanish(client, url, NUM_VANISHING))
        await last
        assert leftovers(url) == (0, 0, 0, 0)
