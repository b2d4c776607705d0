"""The clients of OpenAI and Anthropic through the gateway, on an engine of prepared answers."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FakeEngine, gateway, stream

from holdfast.gateway.tenants import ApiKeys

KEY = "k" * 20


def sse(*events: dict[str, Any], named: bool = False) -> bytes:
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    return "".join(lines).encode()


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"} | {
        "choices": [choice]
    }


CHAT = sse(chunk("he"), chunk("llo", "stop")) + b"data: [DONE]\n\n"
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "status": "completed",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "output": [],
}
USAGE = {"input_tokens": 3, "output_tokens": 2}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}
MESSAGES = sse(
    {"type": "message_start", "message": MESSAGE},
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "text", "text": ""},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
    {"type": "message_stop"},
    named=True,
)


async def answer(request: web.Request) -> web.StreamResponse:
    if request.path == "/v1/chat/completions":
        return await stream(CHAT)(request)
    if request.path == "/v1/messages":
        return await stream(MESSAGES)(request)
    if request.path.startswith("/v1/responses"):
        return web.json_response(RESPONSE)
    return web.json_response({"error": {"message": "no such model", "code": 404}}, status=404)


async def test_the_openai_sdk_works() -> None:
    engine = FakeEngine(answer)
    async with (
        gateway(engine, keys=ApiKeys({KEY: "t"})) as url,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client,
    ):
        asked: list[Any] = [{"role": "user", "content": "hi"}]
        chunks = await client.chat.completions.create(model="m", messages=asked, stream=True)
        texts = [each.choices[0].delta.content async for each in chunks]
        response = await client.responses.create(model="m", input="hi")
        again = await client.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError, match="no such model"):
            await client.models.retrieve("other")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
    assert texts == ["he", "llo"]
    assert again.id == "resp_1"
    assert json.loads(engine.requests[0][2])["cache_salt"] == "t"


async def test_the_anthropic_sdk_works() -> None:
    engine = FakeEngine(answer)
    async with (
        gateway(engine, keys=ApiKeys({KEY: "t"})) as url,
        anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as client,
    ):
        asked: list[Any] = [{"role": "user", "content": "hi"}]
        async with client.messages.stream(model="m", max_tokens=5, messages=asked) as streamed:
            final = await streamed.get_final_message()
        with pytest.raises(anthropic.AuthenticationError):
            wrong = client.with_options(api_key="wrong")
            await wrong.messages.create(model="m", max_tokens=5, messages=asked)
    (block,) = final.content
    assert block.type == "text" and block.text == "hello"
    assert final.stop_reason == "end_turn"
