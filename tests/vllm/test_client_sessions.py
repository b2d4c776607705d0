"""The middleware that tells the scheduler who sends a request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import pytest

from holdfast.core.hints import CARRIER_KEY
from holdfast.vllm import client_sessions
from holdfast.vllm.client_sessions import ClientSessions

Message = MutableMapping[str, Any]
CODEX = [(b"thread-id", b"t"), (b"x-codex-parent-thread-id", b"p")]
JSON = (b"content-type", b"application/json; charset=utf-8")


class Endpoint:
    """Remembers the scope and the messages of its call."""

    scope: Message

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.scope = scope
        self.messages: list[Message] = []
        while not self.messages or self.messages[-1].get("more_body"):
            self.messages.append(await receive())

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.scope["headers"])


async def _send(message: Message) -> None:
    raise AssertionError("nothing is to be answered")


async def _posted(
    parts: Iterable[bytes], headers: list[tuple[bytes, bytes]], **scope: Any
) -> Endpoint:
    """The endpoint after a request whose body arrives in parts."""
    parts = list(parts)
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    length = (b"content-length", b"%d" % sum(map(len, parts)))
    basic = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
    endpoint = Endpoint()

    async def receive() -> Message:
        return messages.pop(0)

    scope = {**basic, "headers": [JSON, length, *headers], **scope}
    await ClientSessions(endpoint)(scope, receive, _send)
    return endpoint


async def _record(body: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    endpoint = await _posted([json.dumps(body).encode()], headers)
    seen = json.loads(endpoint.body)
    record: dict[str, Any] = seen.pop("vllm_xargs", {})
    body.pop("vllm_xargs", None)
    assert seen == body
    return record


async def test_record_is_added_to_the_body() -> None:
    record = await _record({"model": "m", "messages": [{"role": "user"}], "tools": [1]}, CODEX)
    assert record == {
        "holdfast_session_id": "t",
        "holdfast_parent_session_id": "p",
        "holdfast_client": "Codex CLI",
    }


async def test_rest_of_the_body_stays_as_it_is() -> None:
    text = b' { "b" : 1e5,"a":"\\u00e9\\ud83d", "n": NaN, "a": 0 }\n'
    endpoint = await _posted([text[:9], text[9:]], CODEX)
    assert endpoint.body.startswith(text.rstrip()[:-1].rstrip())
    assert int(endpoint.headers[b"content-length"]) == len(endpoint.body)
    assert json.loads(endpoint.body)["vllm_xargs"]["holdfast_session_id"] == "t"


@pytest.mark.parametrize("body", [b"{}", b"{ }", b' {"vllm_xargs": null}', b'{"vllm_xargs":{ }}'])
async def test_record_is_added_to_empty_objects(body: bytes) -> None:
    seen = json.loads((await _posted([body], CODEX)).body)
    assert seen["vllm_xargs"]["holdfast_session_id"] == "t"


async def test_other_arguments_of_the_body_stay() -> None:
    body = {"vllm_xargs": {"a": [1, 2.5], "b": "c"}}
    record = await _record(body, CODEX)
    assert record["a"] == [1, 2.5] and record["b"] == "c" and record["holdfast_session_id"] == "t"


async def test_ids_of_a_gateway_replace_the_bodys() -> None:
    body = {"vllm_xargs": {"holdfast_session_id": "x", "holdfast_parent_session_id": "y"}}
    record = await _record(body, [(b"x-holdfast-session-id", b"g")])
    assert record == {"holdfast_session_id": "g", "holdfast_client": "Holdfast"}


async def test_own_hints_of_the_body_stay() -> None:
    body = {"vllm_xargs": {"holdfast_retain_s": 5, "holdfast_agent_id": "a"}}
    record = await _record(body, [(b"x-holdfast-workflow-id", b"w"), *CODEX])
    assert record["holdfast_retain_s"] == 5
    assert (record["holdfast_agent_id"], record["holdfast_workflow_id"]) == ("a", "w")


async def test_fields_with_hints_are_copied() -> None:
    fields = {"nvext": {"agent_hints": {"priority": 3}}, "prompt_cache_retention": "24h"}
    record = await _record({"x": 1, "retention_scope": None, **fields}, [])
    assert json.loads(record[CARRIER_KEY]) == fields


async def test_last_cache_control_of_contents_is_copied() -> None:
    first, last = ({"type": "ephemeral", "ttl": ttl} for ttl in ("5m", "1h"))
    text = 'say "cache_control": {"ttl": "9h"}'
    body = {
        "system": [{"type": "text", "text": "s", "cache_control": first}],
        "messages": [{"role": "user", "content": [{"text": text, "cache_control": last}]}],
        "metadata": {"user_id": text},
    }
    record = await _record(body, [])
    assert json.loads(record[CARRIER_KEY]) == {"cache_control": last}


async def test_hints_that_are_too_long_are_left_out() -> None:
    record = await _record({"agent_hint": "x" * 20_000, "retention_scope": "k"}, [])
    assert json.loads(record[CARRIER_KEY]) == {"retention_scope": "k"}


async def test_title_call_is_marked_and_names_its_agent() -> None:
    headers = [(b"user-agent", b"opencode/1.18.33"), (b"x-session-id", b"s")]
    body: dict[str, Any] = {"messages": [{"role": "system"}, {"role": "user", "content": "x"}]}
    endpoint = await _posted([json.dumps(body).encode()], headers)
    record = json.loads(endpoint.body)["vllm_xargs"]
    assert record == {
        "holdfast_parent_session_id": "s",
        "holdfast_client": "OpenCode",
        "holdfast_side_call": 1,
    }
    assert b"x-session-id" not in endpoint.headers


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function"}]},
        {"messages": [{"role": "user"}, {"role": "assistant"}, {"role": "user"}]},
        {"messages": [], "input": [{"type": "function_call_output"}]},
        {"messages": [], "input": "text"},
        {"previous_response_id": "r"},
        {"messages": [1]},
    ],
)
async def test_turns_of_an_agent_are_no_side_calls(more: dict[str, Any]) -> None:
    headers = [(b"user-agent", b"codex_exec/1"), (b"thread-id", b"s")]
    body = {"messages": [{"role": "user"}], **more}
    body = {key: value for key, value in body.items() if value != []}
    assert (await _record(body, headers))["holdfast_session_id"] == "s"


async def test_session_header_of_vllm_is_set() -> None:
    assert (await _posted([b"{}"], CODEX)).headers[b"x-session-id"] == b"t"
    scope = {"method": "GET", "path": "/v1/models"}
    endpoint = await _posted([b""], [(b"x-session-id", b"old"), *CODEX], **scope)
    assert endpoint.headers[b"x-session-id"] == b"t"


async def test_ids_beyond_ascii_pass() -> None:
    session = "Sitzung \u00dc\u4e00"
    record = await _record({}, [(b"thread-id", session.encode())])
    assert record["holdfast_session_id"] == session


UNTOUCHED: dict[str, tuple[bytes, list[tuple[bytes, bytes]], dict[str, Any]]] = {
    "no client": (b'{"model": "m"}', [], {}),
    "not json": (b'{"model": ', CODEX, {}),
    "an array": (b"[1]", CODEX, {}),
    "nothing": (b"", CODEX, {}),
    "two bytes a character": ('{"model": "m"}'.encode("utf-16"), CODEX, {}),
    "two bytes without a mark": ('{"model": "m"}'.encode("utf-16-le"), CODEX, {}),
    "compressed": (b"\x1f\x8b{}", [(b"content-encoding", b"gzip"), *CODEX], {}),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", CODEX, {}),
    "arguments that are no object": (b'{"vllm_xargs": [1]}', CODEX, {}),
    "another path": (b"{}", CODEX, {"path": "/v1/messages/count_tokens"}),
    "another method": (b"{}", CODEX, {"method": "PUT"}),
}


@pytest.mark.parametrize(("body", "headers", "scope"), UNTOUCHED.values(), ids=UNTOUCHED)
async def test_other_bodies_pass_unchanged(
    body: bytes, headers: list[tuple[bytes, bytes]], scope: dict[str, Any]
) -> None:
    endpoint = await _posted([body], headers, **scope)
    assert endpoint.body == body
    assert int(endpoint.headers[b"content-length"]) == len(body)


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_other_connections_pass_unchanged(kind: str) -> None:
    endpoint = await _posted([b""], CODEX, type=kind)
    assert b"x-session-id" not in endpoint.headers


async def test_requests_whose_client_left_pass() -> None:
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]
    messages.append({"type": "http.disconnect"})
    expected = list(messages)
    endpoint = Endpoint()

    async def receive() -> Message:
        return messages.pop(0)

    headers = [JSON, *CODEX]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
    await ClientSessions(endpoint)(scope, receive, _send)
    assert endpoint.messages == expected


async def test_errors_of_ours_fail_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_sessions, "identify", None)
    endpoint = await _posted([b'{"model": "m"}'], CODEX)
    assert endpoint.body == b'{"model": "m"}'
    assert len(caplog.records) == 1


async def test_messages_get_the_record_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_sessions, "messages_take_xargs", lambda: False)
    body = {"kv_transfer_params": {"a": 1, "holdfast": {"session_id": "x", "retain_s": 5}}}
    text = json.dumps(body).encode()
    headers = [(b"x-holdfast-session-id", b"g"), *CODEX]
    endpoint = await _posted([text], headers, path="/v1/messages")
    seen = json.loads(endpoint.body)["kv_transfer_params"]
    record = {"session_id": "g", "client": "Holdfast", "retain_s": 5}
    assert seen == {"a": 1, "holdfast": record}


async def test_what_changed_in_a_prompt_is_added() -> None:
    endpoint = Endpoint()
    middleware = ClientSessions(endpoint)

    async def posted(day: str, question: str) -> dict[str, Any]:
        said = [("system", f"{'word ' * 300}\nToday is {day}."), ("user", question)]
        messages = [{"role": role, "content": text} for role, text in said]
        body = json.dumps({"model": "m", "messages": messages, "tools": [1]}).encode()
        message = {"type": "http.request", "body": body, "more_body": False}

        async def receive() -> Message:
            return message

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
        await middleware({**scope, "headers": [JSON, *CODEX]}, receive, _send)
        record: dict[str, Any] = json.loads(endpoint.body)["vllm_xargs"]
        return record

    assert "holdfast_prompt_change" not in await posted("2026-11-28", "a")
    assert "holdfast_prompt_change" not in await posted("2026-11-28", "a")
    changed = await posted("2026-11-29", "a")
    assert changed["holdfast_prompt_change"] == "date"
