"""A request's body is let go with its request: nothing of it waits for a collection of cycles."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.answers_with_calls import Judging
from tests.gateway.fake_engine import FIRST, FakeEngine, ServedUrl, gateway, stream
from tests.gateway.test_all_policies import KEYS, everything
from tests.gateway.test_forwarding import CHAT
from tests.gateway.test_judged_answers import APIS, ASKED, FINE, PARTS, RESPONSES, engine_of

from holdfast.core.request_body import RequestBody
from holdfast.gateway.checking import Call
from holdfast.policies.registry import ROUTING_POLICIES
from holdfast.policies.requests import Request

NUM_REQUESTS = 5
HOLD_BODIES = (RequestBody, Request, Call, web.Request)


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """What holds a body and is only in cycles at the end fails the test."""
    gc.collect()
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage if issubclass(type(each), HOLD_BODIES)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left


def body_of(path: str, *, is_streamed: bool) -> dict[str, Any]:
    field = "input" if path == RESPONSES else "messages"
    return {"model": "m", field: ASKED, "stream": is_streamed, "max_tokens": 9}


async def send(url: ServedUrl, number: int, path: str, **options: Any) -> int:
    """Send a request on a connection of its own."""
    headers = {"x-session-id": f"s{number}", "authorization": "Bearer key-of-tenant-1-long"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(url + path, headers=headers, **options) as answered,
    ):
        await answered.read()
        return answered.status


async def settled(url: ServedUrl) -> None:
    """Wait until nothing is in flight and every prompt is compared."""
    while url.counted("holdfast_gateway_requests_in_flight"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


@pytest.mark.parametrize("path", APIS)
@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("parts", [[FINE], PARTS], ids=["allowed", "denied"])
async def test_judged_answers_leave_nothing(path: str, is_streamed: bool, parts: Any) -> None:
    async with gateway(engine_of(parts), policies=[Judging()]) as url:
        body = body_of(path, is_streamed=is_streamed)
        assert await send(url, 0, path, json=body) == 200
        await settled(url)
        with nothing_is_left():
            for number in range(NUM_REQUESTS):
                assert await send(url, number, path, json=body) == 200
            await settled(url)


async def test_all_policies_leave_nothing(tmp_path: Path) -> None:
    policies = everything(tmp_path, ROUTING_POLICIES.names()[0])
    engine = FakeEngine(stream(FIRST, b"data: [DONE]\n\n"))
    options: dict[str, Any] = {"policies": policies.requests, "fairness": policies.fairness}
    async with gateway(engine, keys=KEYS, **options) as url:
        body = body_of(CHAT, is_streamed=True)
        assert await send(url, 0, CHAT, json=body) == 200
        await settled(url)
        with nothing_is_left():
            for number in range(NUM_REQUESTS):
                assert await send(url, number, CHAT, json=body) == 200
            await settled(url)


@pytest.mark.parametrize("end", ["engine dies", "engine is gone", "client leaves", "refused"])
async def test_broken_requests_leave_nothing(end: str) -> None:
    dies = end == "engine dies"
    engine = FakeEngine(stream(FIRST, FIRST, dies=dies, pause_s=0.0 if dies else 0.3))
    async with gateway(engine, probe_s=0.05) as url:

        async def one(number: int) -> None:
            if end == "refused":
                assert await send(url, number, CHAT, data=b'{"messages": ' + b"[" * 900) == 400
                return
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(0.1 if end == "client leaves" else None):
                    await send(url, number, CHAT, json=body_of(CHAT, is_streamed=True))

        await one(0)
        await settled(url)
        if end == "engine is gone":
            await engine.stop()
        with nothing_is_left():
            for number in range(NUM_REQUESTS):
                await one(number)
            await settled(url)
