"""The token of the gateway's admin port, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FakeEngine, ServedUrl, gateway

from holdfast.bearer_token import BearerToken
from holdfast.bench.engine_totals import engine_explanation
from holdfast.errors import EndpointError
from holdfast.gateway.admin_access import AdminAccess
from holdfast.gateway.openapi import OPERATORS

TOKEN = "0123456789abcdef"


@contextlib.asynccontextmanager
async def admin(url: ServedUrl, access: AdminAccess) -> AsyncIterator[str]:
    runner = web.AppRunner(url.gateway.admin_app(access))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def status_of(url: str, authorization: str | None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        assert (answer.headers.get("WWW-Authenticate") == "Bearer") == (answer.status == 401)
        return answer.status


@pytest.mark.parametrize("path", [*OPERATORS, "/none"])
async def test_every_route_but_health_needs_the_token(path: str) -> None:
    access = AdminAccess(BearerToken(TOKEN))
    async with gateway(FakeEngine()) as url, admin(url, access) as admin_url:
        expected = 404 if path == "/none" else 200
        refused = 200 if path == "/health" else 401
        assert await status_of(admin_url + path, f"Bearer {TOKEN}") == expected
        for wrong in (None, "Bearer no", f"Basic {TOKEN}", f"Bearer {TOKEN}é"):
            assert await status_of(admin_url + path, wrong) == refused


async def test_metrics_may_be_open_and_nothing_else() -> None:
    access = AdminAccess(BearerToken(TOKEN), has_open_metrics=True)
    async with gateway(FakeEngine()) as url, admin(url, access) as admin_url:
        assert await status_of(f"{admin_url}/metrics", None) == 200
        assert await status_of(f"{admin_url}/engines", None) == 401


async def test_explain_sends_the_token() -> None:
    access = AdminAccess(BearerToken(TOKEN))
    async with gateway(FakeEngine()) as url, admin(url, access) as admin_url:
        assert await asyncio.to_thread(engine_explanation, admin_url, TOKEN)
        for wrong in (None, "another"):
            with pytest.raises(EndpointError, match="401") as refused:
                await asyncio.to_thread(engine_explanation, admin_url, wrong)
            assert "--token-file" in str(refused.value.hint)
