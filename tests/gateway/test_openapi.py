"""The gateway against its own OpenAPI documents, with whatever hypothesis sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import quote

import aiohttp
import jsonschema
import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.gateway.fake_engine import FakeEngine, ServedUrl, gateway

from holdfast.gateway.api import ROUTES, route_of
from holdfast.gateway.app import Gateway
from holdfast.gateway.openapi import OPERATORS, clients_document, operators_document
from holdfast.gateway.tenants import ApiKeys

KEY = "k" * 20
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DOCUMENT = clients_document()
NAMES = (
    *("model", "messages", "input", "prompt", "contents", "cache_salt", "tools", "stream"),
    *("previous_response_id", "kv_transfer_params", "metadata", "parts", "role"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(width=32) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5).map(json.dumps).map(str.encode),
    VALUES.map(json.dumps).map(str.encode),
    st.binary(max_size=40),
    st.just(b"[" * 200),
)
HEADERS = st.dictionaries(
    st.sampled_from(["X-Session-ID", "X-Holdfast-Retain-S", "Accept", "X-Odd", "Connection"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    max_size=3,
)


class Served:
    """A running gateway with keys, before an engine that answers everything."""

    def __init__(self, runner: asyncio.Runner, url: ServedUrl, engine: FakeEngine) -> None:
        self.engine = engine
        self.url = url
        self._runner = runner

    def send(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, str | None]:
        """Status, content and receipt of an answer."""

        async def sent() -> tuple[int, bytes, str | None]:
            async with (
                aiohttp.ClientSession() as client,
                client.request(method, self.url + path, data=body, headers=headers) as answer,
            ):
                content = await answer.read()
                return answer.status, content, answer.headers.get("X-Holdfast-Engine")

        return self._runner.run(sent())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    engine = FakeEngine()
    running = gateway(engine, keys=ApiKeys({KEY: "blue"}))
    with asyncio.Runner() as runner:
        url = runner.run(running.__aenter__())
        yield Served(runner, url, engine)
        runner.run(running.__aexit__(None, None, None))


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(DOCUMENT["paths"])),
    st.sampled_from(METHODS),
    st.text(min_size=1, max_size=12),
    BODIES,
    HEADERS,
    st.booleans(),
)
@example("/v1/responses/{id}", "POST", "..", b"", {}, True)
@example("/v1/models/{id}", "GET", "../../metrics", b"", {}, True)
def test_every_answer_is_a_documented_one(
    served: Served,
    path: str,
    method: str,
    name: str,
    body: bytes,
    headers: dict[str, str],
    has_key: bool,
) -> None:
    described = DOCUMENT["paths"][path].get(method.lower())
    address = path.replace("{id}", quote(name, safe=""))
    num_before = len(served.engine.requests)
    key = {"Authorization": f"Bearer {KEY}"} if has_key else {}
    status, content, receipt = served.send(method, address, body, {**headers, **key})
    reached = len(served.engine.requests) - num_before
    assert reached == (receipt is not None)
    if receipt is not None:
        assert has_key and described is not None and status == 200
        return
    if path in ("/health", "/openapi.json") and described is not None:
        assert status == 200
        return
    assert status in (400, 401, 404, 405)
    if described is not None:
        error = described["responses"][str(status)]["content"]["application/json"]["schema"]
        known = {"components": DOCUMENT["components"], **error}
        odd_name = route_of(address) is None  # then the shape is OpenAI's
        if not odd_name:
            jsonschema.validate(json.loads(content), known)
    else:
        assert "error" in json.loads(content)


@given(st.text(max_size=30).map(quote))
def test_other_paths_reach_no_engine(served: Served, path: str) -> None:
    if route_of("/" + path) is not None or path in ("health", "openapi.json"):
        return
    num_before = len(served.engine.requests)
    status, _, receipt = served.send("POST", f"/{path}", b"{}", {"x-api-key": KEY})
    assert (status, receipt, len(served.engine.requests)) == (404, None, num_before)


def test_the_document_has_every_route(served: Served) -> None:
    described = {
        (path.replace("{id}", "*"), method.upper())
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert {(route.path, method) for route in ROUTES for method in route.methods} <= described
    status, content, _ = served.send("GET", "/openapi.json", b"", {})
    assert (status, json.loads(content)) == (200, DOCUMENT)


async def test_operators_have_theirs() -> None:
    app = Gateway([], ApiKeys({})).admin_app()
    routes = {route.resource.canonical for route in app.router.routes() if route.resource}
    assert routes == set(OPERATORS) == set(operators_document()["paths"])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/openapi.json"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        assert await answer.json() == operators_document()
    await runner.cleanup()
