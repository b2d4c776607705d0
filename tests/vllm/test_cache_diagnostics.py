"""Cache diagnostics of the hosted APIs, as their own clients read them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from holdfast.core.prompt_fingerprint import PromptFingerprint
from holdfast.core.request_body import RequestBody
from holdfast.vllm.cache_diagnostics import CacheDiagnostics
from holdfast.vllm.client_sessions import ClientSessions

Message = MutableMapping[str, Any]
TOOL: Any = {"name": "look", "input_schema": {"type": "object"}}
SAY: Any = {"role": "user", "content": "Look at the file, please."}
ANSWER: Any = {"role": "assistant", "content": "Which one?"}
NEXT: Any = {"role": "user", "content": "The first."}


class Engine:
    """Answers both APIs as vLLM does, in parts of seven bytes; prompts have 1,000 tokens.

    Attributes:
        cached_tokens: Tokens of the next prompts that are cached.
        asked: Bodies of the requests.
        sent: Bodies of the answers.
    """

    def __init__(self) -> None:
        self.cached_tokens = 0
        self.asked: list[bytes] = []
        self.sent: list[bytes] = []
        self._num_answers = 0

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.asked.append(body)
        asked = json.loads(body)
        self._num_answers += 1
        is_stream = asked.get("stream")
        make = self._messages if scope["path"].endswith("messages") else self._responses
        text = make(bool(is_stream))
        self.sent.append(text)
        kind = b"text/event-stream; charset=utf-8" if is_stream else b"application/json"
        headers = [(b"content-type", kind)]
        if not is_stream:
            headers.append((b"content-length", b"%d" % len(text)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(text), 7):
            part = {"body": text[start : start + 7], "more_body": True}
            await send({"type": "http.response.body", **part})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _messages(self, is_stream: bool) -> bytes:
        new = 1_000 - self.cached_tokens
        usage = {"input_tokens": new, "cache_read_input_tokens": self.cached_tokens}
        answer = {
            "id": f"msg_{self._num_answers}",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "content": [{"type": "text", "text": 'He said "message_start".'}],
            "usage": {**usage, "output_tokens": 3},
        }
        if not is_stream:
            return json.dumps(answer).encode()
        start = {"type": "message_start", "message": {**answer, "content": []}}
        return _events([start, {"type": "message_stop"}])

    def _responses(self, is_stream: bool) -> bytes:
        usage = {
            "input_tokens": 1_000,
            "output_tokens": 3,
            "total_tokens": 1_003,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        answer = {
            "id": f"resp_{self._num_answers}",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "status": "completed",
            "usage": usage,
        }
        if not is_stream:
            return json.dumps(answer).encode()
        created = {"type": "response.created", "response": {**answer, "usage": None}}
        events = [created, {"type": "response.completed", "response": answer}]
        numbered = [{**event, "sequence_number": n} for n, event in enumerate(events)]
        return _events(numbered)


def _events(events: list[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
        for event in events
    )


class Clients:
    """The hosted APIs' own clients of one server."""

    def __init__(self, key: str = "k", app: Any = None) -> None:
        self.engine = Engine()
        self.app = app or CacheDiagnostics(self.engine)
        web = httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app), base_url="http://h")
        self._anthropic: Any = anthropic.AsyncAnthropic(
            api_key=key, base_url="http://h", http_client=web
        )
        self._openai: Any = openai.AsyncOpenAI(api_key=key, base_url="http://h/v1", http_client=web)

    async def message(
        self, messages: list[Any], compared: str | None, **more: Any
    ) -> anthropic.types.Message:
        body = {"model": "m", "max_tokens": 1, "diagnostics": {"previous_message_id": compared}}
        found: anthropic.types.Message = await self._anthropic.messages.create(
            messages=messages, **body | more
        )
        return found

    async def streamed(self, messages: list[Any], compared: str | None) -> anthropic.types.Message:
        body: Any = {"diagnostics": {"previous_message_id": compared}}
        asked = self._anthropic.messages.stream(model="m", max_tokens=1, messages=messages, **body)
        async with asked as stream:
            found: anthropic.types.Message = await stream.get_final_message()
        return found

    async def response(self, items: list[Any], compared: str | None = None, **more: Any) -> Any:
        options = {"prompt_cache_options": {"comparison_response_id": compared}} if compared else {}
        return await self._openai.responses.create(
            model="m", input=items, extra_body=options, **more
        )


async def missed(clients: Clients, first: list[Any], second: list[Any], **more: Any) -> Any:
    """Why the second of two messages missed."""
    answer = await clients.message(first, None)
    later = await clients.message(second, answer.id, **more)
    return None if later.diagnostics is None else later.diagnostics.cache_miss_reason


async def test_the_first_message_opts_in() -> None:
    answer = await Clients().message([SAY], None)
    assert answer.diagnostics is None


async def test_messages_that_only_grew_are_no_miss() -> None:
    clients = Clients()
    clients.engine.cached_tokens = 990
    assert await missed(clients, [SAY], [SAY, ANSWER, NEXT]) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "n"}, "model_changed"),
        ({"tools": [TOOL]}, "tools_changed"),
        ({"system": "Be brief."}, "system_changed"),
        ({}, "messages_changed"),
    ],
)
async def test_what_changed_is_named(change: dict[str, Any], reason: str) -> None:
    second = [SAY] if change else [NEXT]
    found = await missed(Clients(), [SAY], second, **change)
    assert found.type == reason
    assert found.cache_missed_input_tokens > 900


async def test_a_change_in_the_middle_misses_the_rest() -> None:
    first = [{**SAY, "content": "x" * 1_000}, {**ANSWER, "content": "y" * 1_000}, NEXT]
    found = await missed(Clients(), first, [first[0], ANSWER, NEXT])
    assert found.cache_missed_input_tokens == pytest.approx(500, abs=50)


async def test_an_unknown_id_is_not_found() -> None:
    answer = await Clients().message([SAY], "msg_of_another_server")
    assert answer.diagnostics is not None
    assert answer.diagnostics.cache_miss_reason is not None
    assert answer.diagnostics.cache_miss_reason.type == "previous_message_not_found"


async def test_an_answers_id_is_unknown_to_other_tenants() -> None:
    ours = Clients()
    theirs = Clients("other", ours.app)
    answer = await ours.message([SAY], None)
    for found in (
        await theirs.message([SAY], answer.id),
        await ours.message([SAY], answer.id, extra_body={"cache_salt": "t"}),
    ):
        assert found.diagnostics is not None
        assert found.diagnostics.cache_miss_reason is not None
        assert found.diagnostics.cache_miss_reason.type == "previous_message_not_found"


async def test_an_equal_prompt_that_was_not_cached_was_evicted() -> None:
    clients = Clients()
    answer = await clients.message([SAY], None)
    later = await clients.message([SAY], answer.id)
    assert later.diagnostics is not None and later.diagnostics.cache_miss_reason is None
    assert later.diagnostics.model_extra == {
        "holdfast": {"reason": "evicted", "cache_missed_input_tokens": 1_000}
    }


async def test_a_short_prompt_is_not_called_evicted() -> None:
    clients = Clients()
    clients.engine.cached_tokens = 600
    answer = await clients.message([SAY], None)
    later = await clients.message([SAY], answer.id)
    assert later.diagnostics is None


async def test_a_stream_has_the_reason_at_its_start() -> None:
    clients = Clients()
    answer = await clients.streamed([SAY], None)
    later = await clients.streamed([NEXT], answer.id)
    assert later.diagnostics is not None
    assert later.diagnostics.cache_miss_reason is not None
    assert later.diagnostics.cache_miss_reason.type == "messages_changed"


@pytest.mark.parametrize(
    ("second", "cached", "kind", "more"),
    [
        ([SAY, ANSWER, NEXT], 990, "cache_hit", {}),
        ([NEXT], 0, "cache_miss", {"reason": "input_changed", "holdfast": {"reason": "mutated"}}),
        ([SAY], 36, "unavailable", {"holdfast": {"reason": "evicted"}}),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_responses_are_compared(
    second: list[Any], cached: int, kind: str, more: dict[str, Any], is_stream: bool
) -> None:
    clients = Clients()
    first = await clients.response([SAY])
    clients.engine.cached_tokens = cached
    found = await clients.response(second, first.id, stream=is_stream)
    if is_stream:
        *_, last = [event async for event in found]
        found = last.response
    assert type(found.prompt_cache_diagnostics).__name__.startswith("PromptCacheDiagnostics")
    shown = found.prompt_cache_diagnostics.to_dict()
    assert shown["type"] == kind
    assert shown.get("reason") == more.get("reason")
    assert shown.get("holdfast", {}).get("reason") == more.get("holdfast", {}).get("reason")


async def test_an_unknown_response_is_not_found() -> None:
    found = await Clients().response([SAY], "resp_0")
    assert found.prompt_cache_diagnostics.type == "comparison_response_not_found"


async def test_a_stored_history_cannot_be_compared() -> None:
    clients = Clients()
    first = await clients.response([SAY])
    found = await clients.response([NEXT], first.id, previous_response_id=first.id)
    assert found.prompt_cache_diagnostics.type == "unavailable"


async def test_answers_to_other_requests_stay_as_they_are() -> None:
    clients = Clients()
    web = httpx2.AsyncClient(transport=httpx2.ASGITransport(clients.app), base_url="http://h")
    for path in ("/v1/messages", "/v1/responses"):
        for body in ({"messages": [SAY]}, {"input": "x", "stream": True}, {"tools": 1}):
            answer = await web.post(path, json=body)
            assert answer.content == clients.engine.sent[-1]


async def test_an_error_of_ours_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients()
    monkeypatch.setattr(clients.app, "_shown", None)
    answer = await clients.message([SAY], "msg_0")
    assert answer.diagnostics is None


async def test_a_body_is_read_once_for_both_middlewares(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[bytes] = []
    parse = RequestBody.parse

    def counted(text: bytes) -> RequestBody | None:
        texts.append(text)
        return parse(text)

    monkeypatch.setattr(RequestBody, "parse", counted)
    engine = Engine()
    app = CacheDiagnostics(ClientSessions(engine))
    web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://h")
    body = {"messages": [SAY], "diagnostics": {"previous_message_id": None}}
    headers = {"X-Holdfast-Session-ID": "s"}
    answer = await web.post("/v1/messages", json=body, headers=headers)
    assert answer.json()["diagnostics"] is None
    assert len(texts) == 1
    assert json.loads(engine.asked[-1])["vllm_xargs"]["holdfast_session_id"] == "s"


async def test_messages_that_ask_nothing_are_not_digested(monkeypatch: pytest.MonkeyPatch) -> None:
    digested: list[object] = []
    monkeypatch.setattr(PromptFingerprint, "of", lambda *parts: digested.append(parts))
    clients = Clients()
    web = httpx2.AsyncClient(transport=httpx2.ASGITransport(clients.app), base_url="http://h")
    for asks in ({}, {"diagnostics": None}, {"diagnostics": 1}):
        await web.post("/v1/messages", json={"messages": [SAY], **asks})
    assert not digested
    await web.post("/v1/messages", json={"messages": [SAY], "diagnostics": {}})
    assert len(digested) == 1
