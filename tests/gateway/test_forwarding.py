"""Tests of forwarding: bytes, errors, retries, disconnects and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import zlib
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, gateway, stream
from tests.waiting import until_async

from holdfast.gateway.engines import Engine
from holdfast.gateway.headers import request_headers
from holdfast.gateway.tenants import ApiKeys

CHAT = "/v1/chat/completions"
KEY = "k" * 20


def chat(*texts: str, **others: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    return {"model": "m", "messages": messages, **others}


async def post(url: str, path: str = CHAT, **sent: Any) -> tuple[int, bytes, Any]:
    sent.setdefault("json", chat("hello"))
    async with aiohttp.ClientSession() as client, client.post(url + path, **sent) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_bodies_and_answers_pass_byte_for_byte() -> None:
    body = b'{"model":"m",  "messages": [ {"role":"user","content":"\\u00e9"} ], "x": 1e400}'
    events = [b"data: a\n", b"\n", b"data: \xff\x00\n\n", b"data: [DONE]\n\n"]
    engine = FakeEngine(stream(*events, pause_s=0.01))
    async with gateway(engine) as url:
        headers = {"Content-Type": "application/json", "X-Mine": "1"}
        status, got, answered = await post(url, data=body, json=None, headers=headers)
    assert (status, got) == (200, b"".join(events))
    assert engine.requests[0][2] == body
    assert engine.requests[0][1]["X-Mine"] == "1"
    assert answered["X-Holdfast-Engine"] == "e0; reason=only"


async def test_only_the_gateway_says_what_other_engines_have() -> None:
    engine = FakeEngine(stream(FIRST))
    async with gateway(engine) as url:
        await post(url, headers={"x-holdfast-elsewhere-ratio": "1"})
    assert "x-holdfast-elsewhere-ratio" not in map(str.lower, engine.requests[0][1])
    sent = request_headers([("x-holdfast-elsewhere-ratio", "1")], None, None, 0.25)
    assert sent.getall("X-Holdfast-Elsewhere-Ratio") == ["0.2500"]


async def test_a_stream_is_not_held_until_its_end() -> None:
    goes_on = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await goes_on.wait()
        return response

    engine = FakeEngine(answer)
    async with (
        gateway(engine) as url,
        aiohttp.ClientSession() as client,
        client.post(url + CHAT, json=chat("a", stream=True)) as answered,
    ):
        assert await answered.content.readany() == b"data: first\n\n"
        goes_on.set()


async def test_a_client_that_leaves_ends_the_engines_request() -> None:
    engine = FakeEngine(stream(FIRST, pause_s=30.0))
    async with gateway(engine) as url, aiohttp.ClientSession() as client:
        async with client.post(url + CHAT, json=chat("a", stream=True)) as answered:
            await answered.content.readany()
            answered.close()
        for _ in range(100):
            if engine.num_cancelled:
                break
            await asyncio.sleep(0.05)
        assert url.counted("holdfast_gateway_disconnects_total") == 1
        assert url.counted("holdfast_gateway_answers_total") == 0
    assert engine.num_cancelled == 1


@pytest.mark.parametrize(
    ("path", "last"),
    [
        (CHAT, b"data: [DONE]\n\n"),
        ("/v1/messages", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        ("/v1/responses", b'data: {"response": {}, "type": "response.completed"}\n\n'),
    ],
)
async def test_who_leaves_after_the_last_event_has_it_all(path: str, last: bytes) -> None:
    """Codex closes its connection there; what the answer says counts all the same."""
    usage = b'data: {"usage": {"input_tokens": 7, "output_tokens": 2}}\n\n'
    engine = FakeEngine(stream(usage + last, pause_s=30.0))
    body = chat("a", stream=True, input="a")
    async with gateway(engine) as url:
        async with aiohttp.ClientSession() as client, client.post(url + path, json=body) as answer:
            assert await answer.content.readexactly(len(usage + last)) == usage + last
            answer.close()
        await until_async(lambda: url.counted("holdfast_gateway_requests_in_flight") == 0)
        assert url.counted("holdfast_gateway_answers_total") == 1
        assert url.counted("holdfast_gateway_disconnects_total") == 0
        (used,) = url.gateway._engines
        assert used.bytes_per_token != Engine("e", "").bytes_per_token  # learned from its usage


async def test_a_dead_engine_is_replaced_before_the_first_byte() -> None:
    dead, alive = FakeEngine(), FakeEngine()
    async with gateway(dead, alive) as url:
        await dead.stop()
        for number in range(4):
            assert (await post(url, json=chat(str(number))))[0] == 200
    assert len(alive.requests) == 4


async def test_an_engine_wrongly_taken_for_dead_is_tried() -> None:
    async with gateway(FakeEngine()) as url:
        url.gateway._engines[0].is_up = False
        status, _, _ = await post(url)
        assert status == 200


async def test_an_engine_too_busy_to_connect_keeps_what_it_holds() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # no one takes them
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(busy.getsockname())
            async with gateway(FakeEngine(), FakeEngine(), connect_s=0.2) as url:
                await post(url)
                first = next(e for e in url.gateway._engines if e.residency.held_bytes)
                held_bytes = first.residency.held_bytes
                first.url = f"http://127.0.0.1:{busy.getsockname()[1]}"
                status, _, headers = await post(url)
                assert status == 200
                assert not headers["X-Holdfast-Engine"].startswith(first.name)
                assert (first.is_up, first.residency.held_bytes) == (False, held_bytes)


async def test_without_any_engine_the_answer_is_503() -> None:
    engine = FakeEngine()
    async with gateway(engine) as url:
        await engine.stop()
        status, body, _ = await post(url)
        assert status == 503
        assert "no engine is reachable" in json.loads(body)["error"]["message"]
        status, body, _ = await post(url, "/v1/messages")
        assert json.loads(body)["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, {"error"}),
        ("/v1/responses", {"type", "code", "message", "param"}),
        ("/v1/messages", {"type", "error"}),
    ],
)
@pytest.mark.parametrize("cut", [b"", b"data: {"])
async def test_a_broken_stream_ends_with_its_apis_error(
    path: str, expected: set[str], cut: bytes
) -> None:
    answer = stream(FIRST + cut, dies=True, pause_s=0.05)
    engine, other = FakeEngine(answer), FakeEngine()
    async with gateway(engine, other) as url:
        status, body, _ = await post(url, path)
        assert (await post(url, path))[1] == b'{"ok": 1}'  # the next goes elsewhere
    assert status == 200
    assert body.startswith(FIRST)
    last = body.rstrip(b"\n").split(b"\n")[-1]
    assert set(json.loads(last.removeprefix(b"data: "))) == expected
    assert b"stopped before the answer was complete" in last


async def test_a_cut_body_does_not_look_whole() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"half": ')
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    engine = FakeEngine(answer)
    async with gateway(engine) as url:
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(url)


async def test_a_stalled_engine_is_a_gateway_timeout() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30.0)
        return web.Response()

    engine = FakeEngine(answer)
    async with gateway(engine, stall_s=0.2) as url:
        status, body, _ = await post(url)
    assert status == 504
    assert b"did not answer in time" in body


# Refusals.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/metrics", 404),
        ("POST", "/reset_prefix_cache", 404),
        ("POST", "/v1/responses/..%2f..%2freset_prefix_cache", 404),
        ("GET", "/v1/models/../../metrics", 404),
        ("POST", "/holdfast/v1/state", 404),
    ],
)
async def test_only_clients_paths_pass(method: str, path: str, status: int) -> None:
    engine = FakeEngine()
    async with gateway(engine) as url:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n".encode())
        assert int((await reader.readline()).split()[1]) == status
        writer.close()
    assert not engine.requests


async def test_large_deep_and_slow_bodies_are_refused() -> None:
    engine = FakeEngine()
    async with gateway(engine, body_bytes=1 << 20, receive_s=0.3) as url:
        assert (await post(url, data=io.BytesIO(b" " * (2 << 20)), json=None))[0] == 413
        bomb = zlib.compress(b" " * (8 << 20))
        headers = {"Content-Encoding": "deflate"}
        assert (await post(url, data=bomb, json=None, headers=headers))[0] == 413
        status, body, _ = await post(url, data=b"[" * 200 + b"]" * 200, json=None)
        assert (status, b"deeper than 100" in body) == (400, True)

        async def slowly() -> Any:
            yield b"{"
            await asyncio.sleep(5.0)

        assert (await post(url, data=slowly(), json=None))[0] == 408
    assert not engine.requests


async def test_ambiguous_framing_reaches_no_engine() -> None:
    engine = FakeEngine()
    async with gateway(engine) as url:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n"
        writer.write(
            (head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n").encode()
        )
        assert b" 400 " in await reader.readline()
        writer.close()
    assert not engine.requests


async def test_malformed_json_reaches_the_engine_which_answers() -> None:
    engine = FakeEngine()
    async with gateway(engine) as url:
        for body in (b"{", b"[]", b'{"messages": 5}', b"\xff", b""):
            assert (await post(url, data=body, json=None))[0] == 200
    assert [request[2] for request in engine.requests][:3] == [b"{", b"[]", b'{"messages": 5}']


# Keys and headers.


async def test_a_key_is_needed_and_names_the_tenant() -> None:
    keys = ApiKeys({KEY: "blue"})
    engine = FakeEngine()
    async with gateway(engine, keys=keys, engine_key="inner") as url:
        assert (await post(url))[0] == 401
        for headers in ({"Authorization": "Bearer " + "x" * 20}, {"x-api-key": KEY + "x"}):
            assert (await post(url, headers=headers))[0] == 401
        assert (await post(url, headers={"Authorization": f"Bearer {KEY}"}))[0] == 200
        body = chat("hello", cache_salt="own")
        assert (await post(url, headers={"x-api-key": KEY}, json=body))[0] == 200
    first, second = engine.requests
    assert first[1]["Authorization"] == second[1]["Authorization"] == "Bearer inner"
    assert "x-api-key" not in {name.lower() for name in second[1]}
    salts = [json.loads(r[2])["cache_salt"] for r in (first, second)]
    assert salts == ["blue", f"blue:{sha256(b'own').hexdigest()[:32]}"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"cache_salt": "red", "stream": "true", "temperature": NaN}',
        b'{"cache_salt": "red", "model": 5, "user": "\\ud83d", "\\ud83d": 1}',
        b'{"cache_salt": "blue", "cache_salt": "red"}',
        b'{"cache_salt": ["red"]}',
    ],
)
async def test_no_body_leaves_its_tenant(body: bytes) -> None:
    """What the engine reads has the tenant's salt, however odd the rest of it is."""
    engine = FakeEngine()
    async with gateway(engine, keys=ApiKeys({KEY: "blue"})) as url:
        headers = {"x-api-key": KEY, "Content-Type": "application/json"}
        assert (await post(url, headers=headers, data=body, json=None))[0] == 200
    sent = json.loads(engine.requests[0][2])
    assert sent["cache_salt"] in ("blue", f"blue:{sha256(b'red').hexdigest()[:32]}")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", '{"cache_salt": "red"}'.encode("utf-16")])
async def test_body_that_cannot_carry_a_salt_is_refused(body: bytes) -> None:
    engine = FakeEngine()
    async with gateway(engine, keys=ApiKeys({KEY: "blue"})) as url:
        headers = {"x-api-key": KEY, "Content-Type": "application/json"}
        assert (await post(url, headers=headers, data=body, json=None))[0] == 400
    assert not engine.requests


async def test_headers_of_one_connection_do_not_pass() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"X-Kept": "1", "Keep-Alive": "timeout=5"})

    engine = FakeEngine(answer)
    async with gateway(engine) as url:
        headers = {"Connection": "keep-alive, X-Private", "X-Private": "1", "TE": "trailers"}
        _, _, answered = await post(url, headers=headers)
    sent = {name.lower() for name in engine.requests[0][1]}
    assert not sent & {"x-private", "te"}
    assert answered["X-Kept"] == "1"
    assert "Keep-Alive" not in answered


@pytest.mark.parametrize("is_tenant", [True, False])
async def test_tenants_give_no_orders_to_engines(is_tenant: bool) -> None:
    engine = FakeEngine()
    async with gateway(engine, keys=ApiKeys({KEY: "blue"} if is_tenant else {})) as url:
        orders = {"X-Data-Parallel-Rank": "1", "X-Vllm-Priority": "-9", "x-api-key": KEY}
        assert (await post(url, headers=orders))[0] == 200
    sent = {name.lower() for name in engine.requests[0][1]}
    assert ("x-data-parallel-rank" in sent, "x-vllm-priority" in sent) == (not is_tenant,) * 2


# Where requests go.


async def test_sessions_return_to_their_engine() -> None:
    one, two = FakeEngine(), FakeEngine()
    async with gateway(one, two) as url:
        for turn in range(3):
            for session in "abcd":
                texts = [session * 500] + [f"turn {number}" for number in range(turn)]
                _, _, answered = await post(url, json=chat(*texts))
                if turn:
                    assert answered["X-Holdfast-Engine"].endswith("reason=origin")
    assert len(one.requests) == len(two.requests) == 6


async def test_what_refers_to_an_answer_goes_where_it_was_given() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"id": "resp_%d"}' % id(request))

    one, two = FakeEngine(answer), FakeEngine(answer)
    async with gateway(one, two) as url:
        body = {"model": "m", "input": "x" * 9000}
        _, first, answered = await post(url, "/v1/responses", json=body)
        origin = answered["X-Holdfast-Engine"].partition(";")[0]
        for number in range(3):
            body = {"model": "m", "input": str(number) * 9000}
            body["previous_response_id"] = json.loads(first)["id"]
            _, _, answered = await post(url, "/v1/responses", json=body)
            assert answered["X-Holdfast-Engine"] == f"{origin}; reason=origin"
