"""The gateway on Ray Serve: a real cluster, two replicas and an owner, engines without a model."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from tests.gateway.fake_engine import FIRST, stream
from tests.gateway.ray.cluster import RayGateway, actors, cluster, ray, ray_gateway
from tests.waiting import LONGEST_S

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

CHAT = "/v1/chat/completions"
Found = TypeVar("Found")


def chat(*texts: str, **others: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text} for text in texts]
    return {"model": "m", "messages": messages, **others}


async def until_true(claim: Callable[[], Awaitable[Found]]) -> Found:
    async with asyncio.timeout(LONGEST_S):
        while not (found := await claim()):
            await asyncio.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with cluster() as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(port: int) -> AsyncIterator[RayGateway]:
    async with ray_gateway(port) as found:
        yield found


@pytest.fixture(autouse=True)
def plain_answers(served: RayGateway) -> Iterator[None]:
    yield
    for engine in served.engines:
        engine.answer = engine.plain
        engine.requests.clear()


async def test_streams_pass_byte_for_byte(served: RayGateway) -> None:
    body = b'{"model":"m",  "messages": [ {"role":"user","content":"\\u00e9"} ], "x": 1e400}'
    events = [b"data: a\n", b"\n", b"data: \xff\x00\n\n", b"data: [DONE]\n\n"]
    for engine in served.engines:
        engine.answer = stream(*events, pause_s=0.01)
    status, got, _ = await served.post(CHAT, data=body)
    assert (status, got) == (200, b"".join(events))
    assert [text for engine in served.engines for _, _, text in engine.requests] == [body]


async def test_a_broken_body_does_not_look_whole(served: RayGateway) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    for engine in served.engines:
        engine.answer = answer
    with pytest.raises(aiohttp.ClientError):
        await served.post(CHAT, json=chat("broken"))


async def test_refusals_come_in_the_shape_of_the_api(served: RayGateway) -> None:
    status, body, _ = await served.post("/v1/nothing", json={})
    assert (status, json.loads(body)["error"]["code"]) == (404, 404)


async def test_a_session_has_one_engine_for_all_replicas(served: RayGateway) -> None:
    async def all_up() -> bool:  # what has just broken off an answer counts as down for a while
        return all(each["up"] for each in (await served.state())["engines"])

    await until_true(all_up)
    used: dict[str, set[str]] = {}
    for turn in range(5):
        for number in range(10):
            texts = [f"{number} {each} " * 5 for each in range(turn + 1)]
            headers = {"x-session-id": f"s{number}"} if number % 2 else {}
            status, _, receipt = await served.post(CHAT, json=chat(*texts), headers=headers)
            assert status == 200
            used.setdefault(str(number), set()).add(receipt.partition(";")[0])
    assert {len(engines) for engines in used.values()} == {1}
    assert len(set.union(*used.values())) == 2

    async def both_replicas() -> bool:
        counts = await served.counts("placements_total")
        return len([count for count in counts.values() if count]) == 2

    await until_true(both_replicas)


async def test_a_client_that_leaves_ends_its_request(served: RayGateway) -> None:
    for engine in served.engines:
        engine.answer = stream(FIRST, pause_s=2 * LONGEST_S)
    sent = chat("leaves", stream=True)
    async with served.client.post(served.url + CHAT, json=sent) as answer:
        assert await answer.content.readany() == FIRST
        answer.close()

    async def nothing_is_left() -> bool:
        has_left = sum(each.num_cancelled for each in served.engines) == 1
        return has_left and await served.num_in_flight() == 0

    await until_true(nothing_is_left)


async def test_requests_of_a_killed_replica_are_freed(served: RayGateway) -> None:
    goes_on = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        await goes_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    for engine in served.engines:
        engine.answer = answer
    sent = [
        asyncio.ensure_future(served.post(CHAT, json=chat(f"killed {n}", stream=True)))
        for n in range(12)
    ]

    async def all_in_flight() -> dict[str, Any] | None:
        state = await served.state()
        requests = {each["name"]: each["requests"] for each in state.get("replicas", [])}
        return requests if sum(requests.values()) == 12 else None

    requests = await until_true(all_in_flight)
    assert requests is not None
    killed = max(requests, key=lambda name: int(requests[name]))
    ray.kill(actors("holdfast-gateway")[killed])

    async def freed() -> bool:
        num_left: int = 12 - requests[killed]
        return await served.num_in_flight() == num_left

    await until_true(freed)
    goes_on.set()
    answers = await asyncio.gather(*sent, return_exceptions=True)
    whole = [each for each in answers if isinstance(each, tuple) and each[0] == 200]
    assert len([each for each in whole if each[1].endswith(b"[DONE]\n\n")]) == 12 - requests[killed]


async def test_requests_go_on_without_their_owner(served: RayGateway) -> None:
    async def two_replicas() -> bool:
        return len((await served.state()).get("replicas", [])) == 2

    async def sessions(turn: int) -> list[str]:
        engines = []
        for number in range(8):
            texts = [f"owner {number} {each} " * 5 for each in range(turn + 1)]
            headers = {"x-session-id": f"o{number}"}
            status, _, receipt = await served.post(CHAT, json=chat(*texts), headers=headers)
            assert status == 200
            engines.append(receipt.partition(";")[0])
        return engines

    async def placed_alone() -> bool:
        for owner in actors("holdfast-owner").values():
            ray.kill(owner)
        headers = {"x-session-id": f"new {next(numbers)}"}
        status, _, receipt = await served.post(CHAT, json=chat("new"), headers=headers)
        assert status == 200
        return receipt.endswith("reason=hash")

    await until_true(two_replicas)
    await sessions(0)
    numbers = itertools.count()
    await until_true(placed_alone)
    await sessions(1)
    await until_true(two_replicas)
    await sessions(2)
    assert len({tuple(await sessions(turn)) for turn in range(3, 7)}) == 1


async def test_a_long_body_passes_byte_for_byte(served: RayGateway) -> None:
    body = json.dumps(chat("word " * 1_000_000)).encode()
    assert (await served.post(CHAT, data=body))[:2] == (200, b'{"ok": 1}')
    assert [text for engine in served.engines for _, _, text in engine.requests] == [body]


async def test_a_wrong_setting_is_named_by_serve_run(served: RayGateway) -> None:
    command = [sys.executable, "-m", "ray.serve.scripts", "run", "--name", "wrong"]
    command += ["holdfast.gateway.ray_app:app", "engine=http://127.0.0.1:1"]
    address = ray.get_runtime_context().gcs_address
    command += ["--address", address]
    found = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert found.returncode != 0
    assert "ConfigError: gateway on Ray: Object contains unknown field `engine`" in found.stderr
