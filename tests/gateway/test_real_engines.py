"""Clients, KV events and deaths, with two real engines and the gateway before them.

One pair of engines for the whole file, `holdfast serve` and stock vLLM; the last test ends one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from google import genai
from google.genai import types
from tests.gateway.real_engines import (
    BLOCK_TOKENS,
    KV_TOKENS,
    MODEL,
    GatewayProcess,
    RealEngine,
    real_engines,
)
from tests.vllm.client_shapes import CHAT, COMPLETIONS, MESSAGES, REQUESTS, RESPONSES
from tests.waiting import until_async

from holdfast.gateway.app import Gateway
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import engine_session_id
from holdfast.gateway.tenants import ApiKeys

pytestmark = [pytest.mark.engine, pytest.mark.server]

KEY = "k" * 20
LENGTHS = {RESPONSES: "max_output_tokens"}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RealEngine]]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("engines")
    with real_engines(directory, "holdfast", "vllm-default") as running:
        yield running


@pytest.fixture(scope="module")
def address(engines: list[RealEngine]) -> Iterator[GatewayProcess]:
    with GatewayProcess(engines) as running:
        yield running


async def send(
    url: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> tuple[bytes, str]:
    """The bytes of an answer, and its receipt."""
    body = {"model": MODEL, LENGTHS.get(path, "max_tokens"): 8, "temperature": 0, **body}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(url + path, json=body) as answer,
    ):
        content = await answer.read()
        assert answer.status == 200, content
        return content, answer.headers.get("X-Holdfast-Engine", "")


def said(text: str, num_words: int = 60) -> list[dict[str, str]]:
    return [{"role": "user", "content": " ".join(f"{text}{n}" for n in range(num_words))}]


def engine_of(receipt: str, engines: list[RealEngine]) -> RealEngine:
    (found,) = [each for each in engines if receipt.startswith(f"{each.name};")]
    return found


# Clients.


@pytest.mark.parametrize("number", [0, 1], ids=["holdfast", "stock"])
async def test_answers_pass_byte_for_byte(engines: list[RealEngine], number: int) -> None:
    """Every client's shape of request, streamed and not."""
    async with (
        relay(engines[number]) as (relay_url, answers),
        gateway_before(Engine("e", relay_url)) as url,
    ):
        for path, headers, body, _ in REQUESTS.values():
            for is_stream in (True, False):
                answers.clear()
                got, _ = await send(url, path, {**body, "stream": is_stream}, headers)
                (answer,) = answers.values()
                assert got == body_of(bytes(answer))
                assert got.startswith((b"data: ", b"event: ") if is_stream else b"{")


@contextlib.asynccontextmanager
async def relay(engine: RealEngine) -> AsyncIterator[tuple[str, dict[int, bytearray]]]:
    """Passes bytes to and from an engine; yields its address and the answers to POST.

    Two answers of one engine differ in ids, times and the sizes of chunks.
    """
    host, _, port = engine.name.partition(":")
    answers: dict[int, bytearray] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down, up = await asyncio.open_connection(host, int(port))
        key = id(writer)

        async def upwards() -> None:
            while part := await reader.read(1 << 16):
                if part.startswith(b"POST "):
                    answers[key] = bytearray()
                up.write(part)
            up.close()

        task = asyncio.create_task(upwards())
        tasks.add(task)
        while part := await down.read(1 << 16):
            if key in answers:
                answers[key] += part
            writer.write(part)
        writer.close()
        await asyncio.gather(task, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", answers
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def body_of(answer: bytes) -> bytes:
    """The body of an HTTP answer."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not (num_bytes := int(size, 16)):
            return body
        body += rest[:num_bytes]
        rest = rest[num_bytes + 2 :]


@contextlib.asynccontextmanager
async def gateway_before(engine: Engine, keys: ApiKeys | None = None) -> AsyncIterator[str]:
    """A gateway in this process; yields its address."""
    served = Gateway([engine], keys or ApiKeys({}))
    runner = web.AppRunner(served.app(), handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_the_openai_sdk_gets_the_engines_answers(
    engines: list[RealEngine], address: GatewayProcess
) -> None:
    texts = []
    for url in (engines[0].server.url, address.url):
        async with openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1") as client:
            asked: Any = {"model": MODEL, "messages": said("o"), "max_tokens": 8, "temperature": 0}
            chunks = await client.chat.completions.create(stream=True, **asked)
            texts.append("".join([c.choices[0].delta.content or "" async for c in chunks]))
            response = await client.responses.create(
                model=MODEL, input="hi", max_output_tokens=8, temperature=0
            )
            texts.append(response.output_text)
            assert (await client.models.list()).data[0].id == MODEL
    assert texts[:2] == texts[2:]
    assert texts[0]


async def test_the_anthropic_sdk_gets_the_engines_answers(
    engines: list[RealEngine], address: GatewayProcess
) -> None:
    found = []
    for url in (engines[0].server.url, address.url):
        async with anthropic.AsyncAnthropic(api_key="x", base_url=url) as client:
            asked: Any = {"model": MODEL, "messages": said("a")}
            limits: Any = {"max_tokens": 8, "extra_body": {"temperature": 0}}
            async with client.messages.stream(**asked, **limits) as streamed:
                final = await streamed.get_final_message()
            counted = await client.messages.count_tokens(**asked)
            texts = [block.text for block in final.content if block.type == "text"]
            found.append((texts, final.usage.output_tokens, counted.input_tokens))
    assert found[0] == found[1]
    assert found[0][1] == 8


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
async def test_the_genai_sdk_gets_the_engines_answers(
    engines: list[RealEngine], address: GatewayProcess
) -> None:
    (message,) = said("g")
    direct, _ = await send(engines[0].server.url, CHAT, {"messages": [message]})
    expected = json.loads(direct)
    options = types.HttpOptions(base_url=address.url)
    client = genai.Client(api_key="x", http_options=options)
    asked: Any = {
        "model": MODEL,
        "contents": message["content"],
        "config": types.GenerateContentConfig(max_output_tokens=8, temperature=0.0),
    }
    whole = await client.aio.models.generate_content(**asked)
    chunks = await client.aio.models.generate_content_stream(**asked)
    streamed = "".join([chunk.text or "" async for chunk in chunks])
    counted = await client.aio.models.count_tokens(model=MODEL, contents=message["content"])
    await client.aio.aclose()
    assert streamed == whole.text == expected["choices"][0]["message"]["content"]
    assert counted.total_tokens == expected["usage"]["prompt_tokens"]


# KV events.


@contextlib.asynccontextmanager
async def running(reader: KvEventReader) -> AsyncIterator[None]:
    """Reads events in this process meanwhile."""
    task = asyncio.create_task(reader.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def num_whole(usage: dict[str, Any]) -> int:
    """Tokens of whole blocks that a request leaves in the cache; its last is never computed."""
    num_tokens: int = usage["prompt_tokens"] + usage["completion_tokens"] - 1
    return num_tokens // BLOCK_TOKENS * BLOCK_TOKENS


@pytest.mark.parametrize("number", [0, 1], ids=["holdfast", "stock"])
async def test_events_tell_what_engines_hold(engines: list[RealEngine], number: int) -> None:
    name = engine_session_id("\x00ev")
    headers = {"X-Session-ID": "ev"}

    async def turn(url: str, text: str, num_words: int) -> int:
        answer, _ = await send(url, CHAT, {"messages": said(text, num_words)}, headers)
        return num_whole(json.loads(answer)["usage"])

    engine = engines[number]
    events, late = EventResidency(), EventResidency()
    reader = KvEventReader("e", engine.events, engine.replay, events)
    async with gateway_before(Engine("e", engine.server.url, events=events)) as url:
        async with running(reader):
            first = await turn(url, "ev", 50)
            await until_async(lambda: events.resident_tokens(name) == first)
        missed = await turn(url, "ev", 100)
        async with running(reader):
            await until_async(lambda: (events.resident_tokens(name) or 0) >= missed)
            # A reader that begins now learns all of it, though nothing new is published.
            async with running(KvEventReader("late", engine.events, engine.replay, late)):
                tokens = events.resident_tokens(name)
                await until_async(lambda: late.resident_tokens(name) == tokens)
            for filler in range(2 * KV_TOKENS // 900):  # evicts it
                await send(url, COMPLETIONS, {"prompt": f"{filler} " * 450})
            await until_async(lambda: events.resident_tokens(name) == 0)


# Tenants.


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
async def test_tenants_share_no_blocks(engines: list[RealEngine], path: str) -> None:
    keys = ApiKeys({KEY: "blue", "r" * 20: "red"})
    text = said(path, 80)
    body: dict[str, Any] = {"messages": text}
    if path in (RESPONSES, COMPLETIONS):
        body = {{RESPONSES: "input", COMPLETIONS: "prompt"}[path]: text[0]["content"]}
    async with gateway_before(Engine("e", engines[1].server.url), keys) as url:
        cached = []
        for key in (KEY, "r" * 20, "r" * 20):
            answer, _ = await send(url, path, body, {"Authorization": f"Bearer {key}"})
            usage = json.loads(answer)["usage"]
            details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
            cached.append(details.get("cached_tokens", usage.get("cache_read_input_tokens")) or 0)
    assert cached[:2] == [0, 0]
    assert cached[2] >= BLOCK_TOKENS


# Deaths.


async def test_a_restarted_gateway_finds_every_session(engines: list[RealEngine]) -> None:
    async def turns(url: str) -> list[tuple[str, int]]:
        found = []
        for number in range(4):
            headers = {"X-Session-ID": f"restart-{number}"}
            answer, receipt = await send(url, CHAT, {"messages": said(f"r{number}", 90)}, headers)
            details = json.loads(answer)["usage"]["prompt_tokens_details"]
            found.append((receipt.split(";")[0], details["cached_tokens"]))
        return found

    async with aiohttp.ClientSession() as client:
        for engine in engines:
            async with client.post(engine.server.url + "/reset_prefix_cache") as answer:
                assert answer.status == 200
    with GatewayProcess(engines) as first:
        first.wait_for_events()
        before = await turns(first.url)
        first.kill()
    with GatewayProcess(engines) as second:
        second.wait_for_events()
        after = await turns(second.url)
    assert [name for name, _ in after] == [name for name, _ in before]
    assert {name for name, _ in before} == {engine.name for engine in engines}
    assert all(num_cached >= BLOCK_TOKENS for _, num_cached in after), after


async def test_a_killed_engine_ends_its_streams_only(
    engines: list[RealEngine], address: GatewayProcess
) -> None:
    doomed, other = engines
    sessions = await sessions_on(address, engines)
    long = {"stream": True, "max_tokens": 1500, "temperature": 0}
    short = {"stream": True, "max_tokens": 200, "temperature": 0}
    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
        streams = []
        for engine, path, options in (
            (doomed, CHAT, long),
            (doomed, MESSAGES, long),
            (other, CHAT, short),
        ):
            has_begun = asyncio.Event()
            session_id, messages = sessions[engine.name]
            body = {"model": MODEL, "messages": messages, **options}
            if path == CHAT:
                body["ignore_eos"] = True
            reading = read(client, address.url + path, body, session_id, has_begun)
            streams.append((group.create_task(reading), has_begun))
        for _, has_begun in streams:
            await has_begun.wait()
        doomed.kill()
    chat, message, kept = (task.result() for task, _ in streams)
    error = json.loads(chat.rstrip().rpartition(b"data: ")[2])["error"]
    assert (error["code"], error["type"]) == (502, "server_error")
    assert b"event: error\n" in message[-400:] and b'"type": "api_error"' in message[-400:]
    assert kept.rstrip().endswith(b"data: [DONE]") and b'"finish_reason":"length"' in kept
    session_id, messages = sessions[doomed.name]
    headers = {"X-Session-ID": session_id}
    _, receipt = await send(address.url, CHAT, {"messages": messages}, headers)
    assert engine_of(receipt, engines) is other
    assert [engine["up"] for engine in address.engines()] == [False, True]


async def sessions_on(
    address: GatewayProcess, engines: list[RealEngine]
) -> dict[str, tuple[str, list[dict[str, str]]]]:
    """A session on each engine, by the engine's name: its id and its messages."""
    found: dict[str, tuple[str, list[dict[str, str]]]] = {}
    number = 0
    while len(found) < len(engines):
        number += 1
        session_id, messages = f"death-{number}", said(f"d{number}", 20)
        headers = {"X-Session-ID": session_id}
        _, receipt = await send(address.url, CHAT, {"messages": messages}, headers)
        found.setdefault(engine_of(receipt, engines).name, (session_id, messages))
    return found


async def read(
    client: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    session_id: str,
    has_begun: asyncio.Event,
) -> bytes:
    """The bytes of a stream, which may end with an error event."""
    async with client.post(url, json=body, headers={"X-Session-ID": session_id}) as answer:
        assert answer.status == 200
        content = b""
        async for chunk in answer.content.iter_any():
            content += chunk
            if content.count(b"data: ") > 3:
                has_begun.set()
        return content
