"""Gemini's API as chat completions and back, with hand-written requests and answers."""

from __future__ import annotations

import contextlib
import json
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.fake_engine import FakeEngine, gateway, stream

from holdfast.gateway.gemini import GeminiCall, GeminiError, chat_of, gemini_call_of
from holdfast.gateway.gemini_answers import GeminiStream, WholeAnswer
from holdfast.gateway.tenants import ApiKeys

CALL = GeminiCall("m", "generateContent")
GENERATE = "/v1beta/models/m:generateContent"
STREAM = "/v1beta/models/m:streamGenerateContent?alt=sse"
KEY = "k" * 20


def chat(**asked: Any) -> dict[str, Any]:
    asked.setdefault("contents", [{"role": "user", "parts": [{"text": "hello"}]}])
    found: dict[str, Any] = json.loads(chat_of(CALL, json.dumps(asked).encode()))
    return found


def test_a_turn_with_tools_becomes_messages() -> None:
    contents = [
        {"role": "user", "parts": [{"text": "list"}, {"text": "now"}]},
        {
            "role": "model",
            "parts": [
                {"text": "thinking", "thought": True},
                {"text": "I look."},
                {
                    "functionCall": {"id": "c1", "name": "ls", "args": {"dir": "."}},
                    "thoughtSignature": "x",
                },
                {"functionCall": {"name": "ls", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "ls", "response": {"output": "a b"}}},
                {"functionResponse": {"name": "ls", "response": {"code": 1, "error": "no"}}},
            ],
        },
    ]
    system = {"parts": [{"text": "Be brief."}]}
    messages = chat(contents=contents, systemInstruction=system)["messages"]
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "tool", "tool")
    ]
    assert messages[1]["content"] == "list\nnow"
    assert messages[2]["content"] == "I look."
    calls = messages[2]["tool_calls"]
    assert [call["id"] for call in calls] == ["c1", "call_1"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"dir": "."}
    assert [message["tool_call_id"] for message in messages[3:]] == ["c1", "call_1"]
    assert messages[3]["content"] == "a b"
    assert json.loads(messages[4]["content"]) == {"code": 1, "error": "no"}


def test_options_tools_and_forms_are_translated() -> None:
    schema = {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}}
    found = chat(
        tools=[{"functionDeclarations": [{"name": "f", "parameters": schema}]}],
        toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        generationConfig={
            "temperature": 0,
            "topP": 0.5,
            "topK": 3,
            "maxOutputTokens": 9,
            "stopSequences": ["x"],
            "responseMimeType": "application/json",
            "responseSchema": schema,
            "thinkingConfig": {"thinkingBudget": 1},
        },
        safetySettings=[{}],
    )
    (tool,) = found["tools"]
    assert tool["function"]["parameters"]["properties"]["n"] == {"type": "integer"}
    assert found["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (found["temperature"], found["top_p"], found["top_k"]) == (0, 0.5, 3)
    assert (found["max_completion_tokens"], found["stop"]) == (9, ["x"])
    assert found["response_format"]["json_schema"]["schema"]["type"] == "object"
    assert "stream" not in found


def test_images_pass_as_data_urls() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    (message,) = chat(contents=[{"parts": [{"text": "see"}, part]}])["messages"]
    assert message["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"contents": []}, "contents: empty"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "x"}}]}]}, "fileData"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav"}}]}]}, "audio/wav"),
        ({"tools": [{"googleSearch": {}}]}, "googleSearch"),
        ({"cachedContent": "c"}, "cachedContent"),
        ({"contents": "text"}, "contents: expected an array"),
        ({"contents": [{"parts": ["text"]}]}, "parts: expected objects"),
    ],
)
def test_what_no_chat_completion_says_is_refused(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(GeminiError, match=named):
        chat(**asked)


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = ["parts", "role", "text", "functionCall", "functionResponse", "functionDeclarations"]
    return st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(names), values)


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=3), _nested, max_leaves=8))
def test_any_body_is_translated_or_refused(value: Any) -> None:
    names = ("contents", "tools", "systemInstruction", "generationConfig", "toolConfig")
    for name in names:
        with contextlib.suppress(GeminiError):
            chat(**{name: value})


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/v1beta/models/a-b.c:generateContent", GeminiCall("a-b.c", "generateContent")),
        ("/v1beta/models/org/name:countTokens", GeminiCall("org/name", "countTokens")),
        ("/v1beta/models/m:embedContent", None),
        ("/v1/chat/completions", None),
    ],
)
def test_paths_name_the_model_and_what_to_do(path: str, call: GeminiCall | None) -> None:
    assert gemini_call_of(path) == call


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}], "model": "m"}


def function(index: int, arguments: str, **named: Any) -> dict[str, Any]:
    name = {"name": named["name"]} if named else {}
    return {
        "index": index,
        **({"id": f"c{index}"} if named else {}),
        "function": {**name, "arguments": arguments},
    }


CHUNKS = [
    delta(role="assistant", content=""),
    delta(reasoning="hm"),
    delta(content="I "),
    delta(content="look.\n"),
    delta(tool_calls=[function(0, "", name="ls")]),
    delta(tool_calls=[function(0, '{"d":')]),
    delta(tool_calls=[function(0, ' "."}'), function(1, "[1]", name="odd")]),
    delta("tool_calls"),
    {
        "choices": [],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        "model": "m",
    },
]
EVENTS = (
    b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in CHUNKS) + b"data: [DONE]\n\n"
)


def events_of(sent: bytes) -> list[Any]:
    return [json.loads(event[6:]) for event in sent.decode().split("\r\n\r\n") if event]


@given(st.lists(st.integers(0, len(EVENTS)), max_size=6))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(EVENTS)]
    translator = GeminiStream()
    pieces = [EVENTS[a:b] for a, b in pairwise(bounds)]
    sent = b"".join(map(translator.feed, pieces)) + translator.end()
    *texts, last = events_of(sent)
    parts = [event["candidates"][0]["content"]["parts"][0] for event in texts]
    assert parts == [{"text": "hm", "thought": True}, {"text": "I "}, {"text": "look.\n"}]
    (candidate,) = last["candidates"]
    assert candidate["finishReason"] == "STOP"
    calls = [part["functionCall"] for part in candidate["content"]["parts"]]
    assert calls[0] == {"id": "c0", "name": "ls", "args": {"d": "."}}
    assert calls[1]["args"] == {"arguments": "[1]"}
    assert last["usageMetadata"]["promptTokenCount"] == 5


def test_an_error_in_a_stream_is_geminis() -> None:
    translator = GeminiStream()
    sent = translator.feed(b'data: {"error": {"message": "out", "code": 500}}\n\n')
    assert events_of(sent + translator.end()) == [
        {"error": {"code": 502, "message": "out", "status": "INTERNAL"}}
    ]


def test_whole_answers_and_errors_are_translated() -> None:
    whole = WholeAnswer(200)
    message = {"content": "hi", "tool_calls": None}
    whole.feed(json.dumps({"choices": [{"message": message, "finish_reason": "length"}]}).encode())
    (candidate,) = json.loads(whole.end())["candidates"]
    assert candidate["content"] == {"role": "model", "parts": [{"text": "hi"}]}
    assert candidate["finishReason"] == "MAX_TOKENS"
    failed = WholeAnswer(404)
    failed.feed(b'{"error": {"message": "no such model"}}')
    assert json.loads(failed.end())["error"] == {
        "code": 404,
        "message": "no such model",
        "status": "NOT_FOUND",
    }
    odd = WholeAnswer(200)
    odd.feed(b"<html>")
    assert json.loads(odd.end())["error"]["code"] == 502


ASKED = {"contents": [{"parts": [{"text": "hello"}]}]}


async def post(url: str, path: str, key: str = KEY) -> tuple[int, bytes]:
    headers = {"x-goog-api-key": key}
    async with (
        aiohttp.ClientSession() as client,
        client.post(url + path, json=ASKED, headers=headers) as answer,
    ):
        return answer.status, await answer.read()


async def test_the_gateway_answers_geminis_paths() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/tokenize":
            return web.json_response({"count": 12, "tokens": []})
        asked = await request.json()
        if asked.get("stream"):
            return await stream(EVENTS)(request)
        choice = {"message": {"content": "hi"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "model": "m"})

    engine = FakeEngine(answer)
    async with gateway(engine, keys=ApiKeys({KEY: "t"})) as url:
        status, text = await post(url, GENERATE)
        assert (status, json.loads(text)["candidates"][0]["finishReason"]) == (200, "STOP")
        status, text = await post(url, STREAM)
        assert (status, len(events_of(text))) == (200, 4)
        status, text = await post(url, "/v1beta/models/m:countTokens")
        assert (status, json.loads(text)) == (200, {"totalTokens": 12})
        assert (await post(url, STREAM.partition("?")[0]))[0] == 400
        assert (await post(url, "/v1/models/m:countTokens"))[0] == 200
        assert (await post(url, "/v1beta/models/m:embedContent"))[0] == 404
        status, text = await post(url, GENERATE, key="wrong")
        assert (status, json.loads(text)["error"]["status"]) == (401, "UNAUTHENTICATED")
    paths = [path for path, _, _ in engine.requests]
    assert paths == ["/v1/chat/completions"] * 2 + ["/tokenize"] * 2
    assert json.loads(engine.requests[0][2])["cache_salt"] == "t"
    assert "X-Goog-Api-Key" not in engine.requests[0][1]


async def test_a_stream_that_breaks_off_ends_with_geminis_error() -> None:
    engine = FakeEngine(stream(EVENTS[:200], dies=True))
    async with gateway(engine) as url:
        status, text = await post(url, STREAM)
    assert status == 200
    assert b'"status": "INTERNAL"' in text.splitlines()[-2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the SDK's own
@pytest.mark.parametrize("is_stream", [False, True])
async def test_the_google_genai_sdk_works(is_stream: bool) -> None:
    genai = pytest.importorskip("google.genai")

    async def answer(request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("stream"):
            return await stream(EVENTS)(request)
        message = {"content": None, "tool_calls": [{"id": "c", **function(0, "{}", name="ls")}]}
        return web.json_response({"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    engine = FakeEngine(answer)
    async with gateway(engine) as url:
        options = genai.types.HttpOptions(base_url=url)
        client = genai.Client(api_key=KEY, http_options=options).aio
        asked = {"model": "m", "contents": "hello", "config": {"max_output_tokens": 5}}
        if is_stream:
            chunks = [c async for c in await client.models.generate_content_stream(**asked)]
            calls = chunks[-1].function_calls
            text = "".join(c.text or "" for c in chunks[:-1])
            assert text == "I look.\n"
            assert chunks[-1].usage_metadata.prompt_token_count == 5
        else:
            calls = (await client.models.generate_content(**asked)).function_calls
        await client.aclose()
    assert calls[0].name == "ls"
    assert json.loads(engine.requests[0][2])["max_completion_tokens"] == 5
