"""Tests of what keeps tenants apart, on every route that a body may take."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FakeEngine, gateway

from holdfast.errors import ConfigError
from holdfast.gateway.api import ROUTES
from holdfast.gateway.tenants import ApiKeys

BLUE, RED = "b" * 20, "r" * 20
KEYS = ApiKeys({BLUE: "blue", RED: "red"})
# They compute no prompt: a tokenizer runs, or nothing.
WITHOUT_CACHE = {"/tokenize", "/detokenize", "/v1/messages/count_tokens", "/v1/responses/*"}
POSTED = [route for route in ROUTES if "POST" in route.methods]


async def post(url: str, path: str, key: str, body: Any) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(url + path, json=body) as answer,
    ):
        return answer.status, await answer.read()


@pytest.mark.parametrize("route", POSTED, ids=lambda route: route.path)
async def test_every_prompt_is_salted_or_refused(route: Any) -> None:
    engine = FakeEngine()
    path = route.path.replace("*", "x")
    async with gateway(engine, keys=KEYS) as url:
        status, _ = await post(url, path, BLUE, {"input": "a", "cache_salt": "red"})
        refused, _ = await post(url, path, BLUE, ["input"])
    assert status == 200
    if route.path in WITHOUT_CACHE:
        return
    sent = json.loads(engine.requests[0][2])
    assert sent.pop("cache_salt").startswith("blue:")
    assert sent == {"input": "a"}
    assert refused == 400


@pytest.mark.parametrize("tenant", ["a/b", "a:b", "a@b", "é", "t" * 65])
def test_tenants_have_names_that_engines_take(tenant: str) -> None:
    """A colon as well: else the salt of `a` with one of its own could be that of another."""
    with pytest.raises(ConfigError, match="line 2: tenant"):
        ApiKeys.parse(f"{BLUE} a\n{RED} {tenant}\n", "keys")


@pytest.mark.parametrize("name", ["remote_host", "do_remote_prefill"])
async def test_clients_name_no_hosts_for_transfers(name: str) -> None:
    engine = FakeEngine()
    body = {"prompt": "p", "kv_transfer_params": {name: "10.0.0.1"}}
    allowed = {"prompt": "p", "kv_transfer_params": {"max_load_tokens": 5}}
    async with gateway(engine, keys=KEYS) as url:
        assert (await post(url, "/v1/completions", BLUE, body))[0] == 400
        assert (await post(url, "/v1/completions", BLUE, allowed))[0] == 200
    assert len(engine.requests) == 1
    async with gateway(engine) as url:  # without keys every client is the operator's own
        assert (await post(url, "/v1/completions", "", body))[0] == 200


async def test_a_stored_response_is_its_tenants_only() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"id": "resp_7", "object": "response"})

    engine = FakeEngine(answer)
    async with gateway(engine, keys=KEYS) as url:
        assert (await post(url, "/v1/responses", BLUE, {"input": "a"}))[0] == 200
        assert (await post(url, "/v1/responses/resp_7/cancel", RED, {}))[0] == 404
        follow_up = {"input": "b", "previous_response_id": "resp_7"}
        assert (await post(url, "/v1/responses", RED, follow_up))[0] == 404
        assert (await post(url, "/v1/responses", BLUE, follow_up))[0] == 200
    assert len(engine.requests) == 2
