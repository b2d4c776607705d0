"""The middleware that refuses bodies nested too deep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.json_nesting import nesting_depth
from holdfast.vllm.nesting_limit import NestingLimit

_JSON = (b"content-type", b"application/json")


class _App:
    """Reads the whole body and answers in two pieces."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.accept"})
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message.get("more_body"):
                break
        self.seen.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})


def _ask(app: _App, *chunks: bytes, headers: tuple[Any, ...] = (_JSON,)) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    more = [*(True for _ in chunks[1:]), False]
    messages: Iterator[dict[str, Any]] = iter(
        {"type": "http.request", "body": chunk, "more_body": is_more}
        for chunk, is_more in zip(chunks, more, strict=True)
    )

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": headers}
    asyncio.run(NestingLimit(app)(scope, receive, send))  # type: ignore[arg-type]
    return sent


def _nested(depth: int) -> bytes:
    return b'{"kv_transfer_params": ' + b'{"a": ' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_body_and_answer_pass_unchanged(size: int) -> None:
    body = json.dumps({"messages": [{"content": '[{"' * 500}] * 20, "prompt": [1] * 300}).encode()
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    app = _App()
    sent = _ask(app, *chunks)
    assert app.seen == [body]
    assert [message.get("body") for message in sent] == [None, b"one", b"two"]


def test_body_nested_too_deep_gets_400() -> None:
    app = _App()
    start, answer = _ask(app, _nested(200)[:50], _nested(200)[50:])
    assert app.seen == []
    assert start["status"] == 400
    error = json.loads(answer["body"])["error"]
    assert "nested deeper than 100 levels" in error["message"]


def test_depth_at_the_limit_passes() -> None:
    app = _App()
    assert _ask(app, _nested(99))[0]["status"] == 200
    assert _ask(app, _nested(100))[0]["status"] == 400


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_depth_counted_in_every_json_encoding(encoding: str) -> None:
    text = '{"∢∢": ' + "[" * 200 + "]" * 200 + "}"
    assert json.loads(text.encode(encoding))
    assert _ask(_App(), text.encode(encoding))[0]["status"] == 400


def test_forms_and_other_protocols_not_checked() -> None:
    app = _App()
    form = (b"content-type", b"multipart/form-data; boundary=x")
    assert _ask(app, b"[" * 5000, headers=(form,))[0]["status"] == 200
    assert _ask(app, b"[" * 5000, headers=(_JSON, form))[0]["status"] == 400
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(NestingLimit(app)({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.accept"}]


def test_disconnect_amid_the_body_passed_on() -> None:
    app = _App()
    seen: list[str] = []

    async def leave(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    scope: dict[str, Any] = {"type": "http", "headers": []}
    asyncio.run(NestingLimit(leave)(scope, receive, receive))  # type: ignore[arg-type]
    assert seen == ["http.request", "http.disconnect"]
    assert app.seen == []


_VALUES = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(value=_VALUES, is_ascii=st.booleans())
def test_depth_equals_that_of_the_parsed_value(value: Any, *, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    assert nesting_depth(text) == _depth(value)


@given(st.binary())
def test_depth_of_any_bytes_is_defined(body: bytes) -> None:
    assert nesting_depth(body) >= 0
