"""Tests of judged tool calls in a running gateway, read by the clients' own SDKs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from google import genai
from google.genai import types
from tests.gateway.answers_with_calls import NO, Judging, Said, response_of, streamed, whole
from tests.gateway.fake_engine import FakeEngine, gateway, stream
from tests.gateway.test_forwarding import CHAT, chat, post

from holdfast.core.identity import Identity
from holdfast.gateway.audit_log import AuditLog
from holdfast.policies.requests import (
    AnswerEnded,
    CallJudged,
    Request,
    RequestClosed,
    RequestPassed,
    RequestSent,
    ToolCall,
    Verdict,
)

FINE = Said("read", '{"path": "a.py"}')
BAD = Said("QZ", '{"Q": "Z"}')
PARTS = [Said("", "I look."), FINE, BAD]
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
APIS = {CHAT: "chat", MESSAGES: "messages", RESPONSES: "responses"}
ASKED: list[Any] = [{"role": "user", "content": "hi"}]
ACTIONS = "holdfast_gateway_policy_actions_total"


def engine_of(parts: Sequence[Said], *, pause_s: float = 0.0) -> FakeEngine:
    """An engine that gives these parts in every API, streamed where it is asked to."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = RESPONSES if request.path.startswith(RESPONSES) else request.path
        body = json.loads(await request.read() or b"{}")
        if body.get("stream") or "stream" in request.query:
            text = streamed(APIS[path], parts)
            chunks = [text[at : at + 100] for at in range(0, len(text), 100)]
            return await stream(*chunks, pause_s=pause_s)(request)
        body_text = whole(APIS[path], parts)
        return web.Response(body=body_text, content_type="application/json")

    return FakeEngine(answer)


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("path", sorted(APIS))
async def test_allowed_answers_pass_byte_for_byte(path: str, is_streamed: bool) -> None:
    parts = PARTS[:2]
    engine = engine_of(parts)
    async with gateway(engine, policies=[Judging()]) as url:
        status, got, headers = await post(url, path, json=chat("a", stream=is_streamed))
    assert engine.requests[0][1]["Accept-Encoding"] == "identity"
    assert status == 200 and "Content-Encoding" not in headers
    assert got == (streamed if is_streamed else whole)(APIS[path], parts)


async def test_the_openai_sdk_reads_refused_chat_answers() -> None:
    async with (
        gateway(engine_of(PARTS), policies=[Judging()]) as url,
        openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(model="m", messages=ASKED)
        async with client.chat.completions.stream(model="m", messages=ASKED) as events:
            final = await events.get_final_completion()
    for each in (answer, final):
        choice = each.choices[0]
        assert choice.message.content == f"I look.\n\n{NO}" and choice.message.refusal == NO
        calls = choice.message.tool_calls or []
        call = calls[0]
        assert len(each.choices) == len(calls) == 1
        assert call.type == "function" and call.function.arguments == FINE.text
        assert choice.finish_reason == "tool_calls"
        assert each.usage is not None and each.usage.total_tokens == 12


async def test_the_openai_sdk_reads_refused_responses() -> None:
    async with (
        gateway(engine_of(PARTS), policies=[Judging()]) as url,
        openai.AsyncOpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client,
    ):
        answer = await client.responses.create(model="m", input="hi")
        async with client.responses.stream(model="m", input="hi") as events:
            kinds = [event.type async for event in events]
            final = await events.get_final_response()
        stored = await client.responses.retrieve("resp_1")
    assert kinds[-1] == "response.completed"
    for each in (answer, final, stored):
        assert [item.type for item in each.output] == ["message", "function_call", "message"]
        assert each.output_text == f"I look.{NO}"


async def test_the_anthropic_sdk_reads_refused_messages() -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 5, "messages": ASKED}
    for parts, reason in ((PARTS, "tool_use"), ([BAD], "end_turn")):
        async with (
            gateway(engine_of(parts), policies=[Judging()]) as url,
            anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client,
        ):
            answer = await client.messages.create(**asked)
            async with client.messages.stream(**asked) as events:
                final = await events.get_final_message()
        for each in (answer, final):
            last = each.content[-1]
            assert last.type == "text" and getattr(last, "text", "") == NO
            assert each.stop_reason == reason and each.usage.output_tokens == 5
            assert [b.type for b in each.content].count("tool_use") == len(parts) // 3


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
async def test_the_google_sdk_reads_refused_answers() -> None:
    async with gateway(engine_of(PARTS), policies=[Judging()]) as url:
        options = types.HttpOptions(base_url=url)
        client = genai.Client(api_key="k", http_options=options).aio
        answer = await client.models.generate_content(model="m", contents="hi")
        events = await client.models.generate_content_stream(model="m", contents="hi")
        streamed_answers = [each async for each in events]
        await client.aclose()
    texts = "".join(each.text or "" for each in streamed_answers)
    calls = [call.name for each in streamed_answers for call in each.function_calls or ()]
    assert answer.text == texts == f"I look.\n\n{NO}"
    assert calls == [call.name for call in answer.function_calls or ()] == ["read"]


async def test_policies_observe_what_was_judged() -> None:
    policy = Judging()
    async with gateway(engine_of(PARTS), policies=[policy]) as url:
        await post(url, json=chat("a"))
        assert url.counted(ACTIONS) == 1
    kinds = [type(event) for event in policy.events]
    answered = [RequestSent, CallJudged, CallJudged, AnswerEnded]
    assert kinds == [RequestPassed, *answered, RequestClosed]
    assert [e.verdict.action for e in policy.events if isinstance(e, CallJudged)] == [
        "allow",
        "deny",
    ]


class Failing(Judging):
    """Fails in one method."""

    def __init__(self, method: str) -> None:
        super().__init__()
        setattr(self, method, self._fail)

    def _fail(self, *_: object) -> Any:
        raise RuntimeError("a policy's mistake")


async def test_calls_that_a_mandatory_policy_fails_on_are_denied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        async with gateway(engine_of([FINE]), policies=[Failing("judge")]) as url:
            for is_streamed in (True, False, True):
                status, got, _ = await post(url, json=chat("a", stream=is_streamed))
                assert status == 200 and b"a.py" not in got and b"has failed" in got
            assert url.counted(ACTIONS) == 3 + 3  # failures, and calls denied for them
    assert len([record for record in caplog.records if "is mandatory" in record.message]) == 1


@pytest.mark.parametrize(("method", "answered"), [("refuse", [503] * 2), ("observe", [200, 503])])
async def test_requests_that_a_mandatory_policy_fails_on_are_refused(
    method: str, answered: list[int]
) -> None:
    async with gateway(engine_of([]), policies=[Failing(method)]) as url:
        got = [(await post(url)) for _ in range(2)]
    assert [status for status, _, _ in got] == answered
    assert json.loads(got[-1][1])["error"]["type"] == "server_error"


class Optional(Failing):
    """Is not needed."""

    is_mandatory = False


async def test_a_failing_judge_that_is_not_mandatory_is_off() -> None:
    async with gateway(engine_of([FINE]), policies=[Optional("judge")]) as url:
        for _ in range(2):
            assert (await post(url))[1] == whole("chat", [FINE])
        assert url.counted(ACTIONS) == 1


@pytest.mark.parametrize("path", sorted(APIS))
async def test_streams_that_cannot_be_read_end_in_an_error(path: str) -> None:
    text = streamed(APIS[path], [Said("", "fine")])
    engine = FakeEngine(stream(text[:-300] + b'\n\ndata: {"QZ\n\n', b"data: Q\n\n"))
    async with gateway(engine, policies=[Judging()]) as url:
        _, got, _ = await post(url, path, json=chat("a", stream=True))
        assert url.counted("holdfast_gateway_unjudged_total") == 1
    assert b"Q" not in got and b"cannot be judged" in got.rsplit(b"data: ", 1)[1]


async def test_bodies_that_cannot_be_read_are_not_given() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"choices": [QZ', content_type="application/json")

    async with gateway(FakeEngine(answer), policies=[Judging()]) as url:
        with pytest.raises(aiohttp.ClientError):
            await post(url)


async def test_compressed_answers_are_not_given() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"QZ", headers={"Content-Encoding": "br"})

    async with gateway(FakeEngine(answer), policies=[Judging()]) as url:
        status, got, _ = await post(url)
    assert status == 502 and b"Q" not in got


async def test_an_engine_that_dies_in_a_call_shows_nothing_of_it() -> None:
    text = streamed("chat", [FINE])
    engine = FakeEngine(stream(text[: text.rindex(b"arguments")], dies=True, pause_s=0.05))
    async with gateway(engine, policies=[Judging()]) as url:
        _, got, _ = await post(url, json=chat("a", stream=True))
    assert b"read" not in got and b"stopped before the answer was complete" in got


# Stored responses.


async def get(url: str, path: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as client, client.get(url + path) as answer:
        return answer.status, await answer.read()


async def test_stored_responses_do_not_give_denied_calls() -> None:
    policy = Judging()
    async with gateway(engine_of(PARTS), policies=[policy]) as url:
        assert (await get(url, f"{RESPONSES}/resp_1"))[0] == 404  # this gateway has not judged it
        await post(url, RESPONSES, json={"model": "m", "input": "hi", "background": True})
        for query in ("", "?stream=true"):
            status, got = await get(url, f"{RESPONSES}/resp_1{query}")
            assert status == 200 and b"Q" not in got and NO.encode() in got
        assert (await get(url, f"{RESPONSES}/resp_1?stream=true&starting_after=3"))[0] == 400
        assert (await get(url, f"{RESPONSES}/resp_1/input_items"))[0] == 400
    assert [call.name for call in policy.calls] == ["read", "QZ"]  # once, however often it is read


class Changing(Judging):
    """Denies a call only at first, as the end of a loop would."""

    def judge(self, request: Request, call: ToolCall) -> Verdict | None:
        self.calls.append(call)
        return Verdict("deny", "first", NO) if len(self.calls) == 1 else None


async def test_a_denied_call_stays_denied() -> None:
    async with gateway(engine_of([FINE]), policies=[Changing()]) as url:
        await post(url, RESPONSES, json={"model": "m", "input": "hi"})
        for _ in range(2):
            assert b"a.py" not in (await get(url, f"{RESPONSES}/resp_1"))[1]


async def test_calls_of_background_responses_are_judged_when_read() -> None:
    begun = json.dumps(response_of([]) | {"status": "queued"}).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        text = begun if request.method == "POST" else whole("responses", PARTS)
        return web.Response(body=text, content_type="application/json")

    async with gateway(FakeEngine(answer), policies=[Judging()]) as url:
        _, got, _ = await post(url, RESPONSES, json={"model": "m", "input": "hi"})
        assert got == begun
        assert b"Q" not in (await get(url, f"{RESPONSES}/resp_1"))[1]


# The audit log.


async def test_the_audit_log_says_what_was_decided(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    headers = {"X-Session-ID": "s1"}
    audit = AuditLog(path)
    async with gateway(engine_of(PARTS), policies=[Judging()], audit=audit) as url:
        await post(url, json=chat("my secret"), headers=headers)
        audit.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    shown = [(line["session"], line["tool"], line["rule"], line["verdict"]) for line in lines]
    assert shown == [("s1", "read", "", "allow"), ("s1", "QZ", "q", "deny")]
    assert "secret" not in path.read_text() and "a.py" not in path.read_text()
    assert len({line["arguments_sha256"] for line in lines}) == 2


def written(log: AuditLog) -> None:
    log.write(Identity(tenant="t"), CHAT, "p", "r", "deny", ToolCall("x", "{}"))


def test_a_renamed_audit_log_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    written(log)
    path.rename(tmp_path / "audit.1")
    written(log)
    path.write_bytes(b"")  # as copytruncate leaves it
    written(log)
    log.close()
    assert len(path.read_text().splitlines()) == 1
    assert len((tmp_path / "audit.1").read_text().splitlines()) == 1


async def test_a_full_disk_stops_no_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        log = AuditLog(Path("/dev/full"))
        async with gateway(engine_of(PARTS), policies=[Judging()], audit=log) as url:
            for _ in range(2):
                status, got, _ = await post(url)
                assert status == 200 and b"Q" not in got
            assert url.counted("holdfast_gateway_audit_lost_total") == 4
        log.close()
    assert len([record for record in caplog.records if "/dev/full" in record.message]) == 1
