"""The middleware that reads clients' session headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from holdfast.vllm.client_sessions import ClientSessions

Message = MutableMapping[str, Any]


class Endpoint:
    """Remembers the scope of its call."""

    scope: Message

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.scope = scope


async def _receive() -> Message:
    raise AssertionError("the body is the application's to read")


async def _send(message: Message) -> None:
    raise AssertionError("nothing is to be answered")


async def _seen(scope: Message) -> Message:
    endpoint = Endpoint()
    await ClientSessions(endpoint)(scope, _receive, _send)
    return endpoint.scope


async def test_client_session_header_becomes_vllms() -> None:
    headers = [(b"X-Claude-Code-Session-Id", b"s"), (b"x-claude-code-agent-id", b"a")]
    seen = await _seen({"type": "http", "headers": headers})
    assert (b"x-session-id", b"s/sub-agent/a") in seen["headers"]
    assert len(seen["headers"]) == 3


async def test_client_header_replaces_x_session_id() -> None:
    headers = [(b"x-session-id", b"t"), (b"x-parent-session-id", b"s")]
    seen = await _seen({"type": "http", "headers": headers})
    assert [value for name, value in seen["headers"] if name == b"x-session-id"] == [
        b"s/sub-agent/t"
    ]


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "headers": [(b"x-session-id", b"s"), (b"accept", b"*/*")]},
        {"type": "http", "headers": [(b"user-agent", b"curl")]},
        {"type": "http"},
        {"type": "websocket", "headers": [(b"thread-id", b"t")]},
        {"type": "lifespan"},
    ],
)
async def test_other_requests_pass_unchanged(scope: Message) -> None:
    assert await _seen(scope) is scope


async def test_non_ascii_ids_pass() -> None:
    seen = await _seen({"type": "http", "headers": [(b"thread-id", "Sitzung \u00fc".encode())]})
    assert (b"x-session-id", "Sitzung \u00fc".encode()) in seen["headers"]
