"""Requests that the gateway holds, with engines that fit one of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, gateway
from tests.waiting import until_async

CHAT = "/v1/chat/completions"
HELD = "holdfast_gateway_requests_held"


def chat(name: str) -> dict[str, Any]:
    """A prompt of about 1,200 tokens; the fake engine has 1,600."""
    return {"model": "m", "messages": [{"role": "user", "content": name * 4800}], "stream": True}


class OneByOne:
    """Streams a first event, and the rest when told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        await self.goes_on.wait()
        return response


async def read(client: aiohttp.ClientSession, url: str, name: str) -> int:
    async with client.post(url + CHAT, json=chat(name)) as answer:
        await answer.read()
        return answer.status


async def test_what_does_not_fit_waits_for_what_runs() -> None:
    answer = OneByOne()
    engine = FakeEngine(answer)
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        first = asyncio.create_task(read(client, url, "a"))
        await until_async(lambda: len(engine.requests) == 1)
        second = asyncio.create_task(read(client, url, "b"))
        await until_async(lambda: url.counted(HELD) == 1)
        assert url.counted("holdfast_gateway_held_tokens") > 1000
        assert len(engine.requests) == 1
        answer.goes_on.set()
        assert await first == await second == 200
        assert url.counted(HELD) == url.counted("holdfast_gateway_held_tokens") == 0
    assert len(engine.requests) == 2


async def test_a_client_that_leaves_while_held_reaches_no_engine() -> None:
    answer = OneByOne()
    engine = FakeEngine(answer)
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        first = asyncio.create_task(read(client, url, "a"))
        await until_async(lambda: len(engine.requests) == 1)
        held = asyncio.create_task(read(client, url, "b"))
        await until_async(lambda: url.counted(HELD) == 1)
        held.cancel()
        await until_async(lambda: url.counted(HELD) == 0)
        answer.goes_on.set()
        assert await first == 200
        assert await read(client, url, "c") == 200
    prompts = [json.loads(body)["messages"][0]["content"] for _, _, body in engine.requests]
    assert [prompt[0] for prompt in prompts] == ["a", "c"]


async def test_a_client_that_leaves_makes_space() -> None:
    answer = OneByOne()
    engine = FakeEngine(answer)
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        leaving = asyncio.create_task(read(client, url, "a"))
        await until_async(lambda: len(engine.requests) == 1)
        held = asyncio.create_task(read(client, url, "b"))
        await until_async(lambda: url.counted(HELD) == 1)
        leaving.cancel()
        await until_async(lambda: len(engine.requests) == 2)
        answer.goes_on.set()
        assert await held == 200


async def test_what_is_held_moves_when_its_engine_dies() -> None:
    answer = OneByOne()
    engines = [FakeEngine(answer), FakeEngine(answer)]
    async with gateway(*engines, probe_s=0.1) as url, aiohttp.ClientSession() as client:
        tasks = [asyncio.create_task(read(client, url, name)) for name in "ab"]
        await until_async(lambda: all(len(engine.requests) == 1 for engine in engines))
        held = asyncio.create_task(read(client, url, "c"))
        await until_async(lambda: url.counted(HELD) == 1)
        await engines[0].stop()
        answer.goes_on.set()
        assert await held == 200
        await asyncio.gather(*tasks)
    assert len(engines[1].requests) == 2
