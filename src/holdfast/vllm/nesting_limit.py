"""ASGI middleware: refuses request bodies whose nesting would crash the engine.

vLLM passes fields such as `kv_transfer_params` to the engine core unchecked. Nested a few hundred
levels deep, they crash the core, and with it the server, under any scheduler. `holdfast serve`
installs it; elsewhere give `vllm serve --middleware holdfast.vllm.nesting_limit.NestingLimit`.

Process: API server. Checked on vLLM 0.28 ... 0.33; imports nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from holdfast.core.json_nesting import nesting_depth

__all__ = ["NestingLimit"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MAX_DEPTH: Final = 100


class NestingLimit:
    """Answers 400 to bodies nested deeper than `max_depth` and changes nothing else.

    It buffers a body until it is complete, as the endpoints do, but no answer. It does not check
    forms, such as audio uploads.

    Args:
        app: The application.
        max_depth: Levels of objects and arrays (count).
    """

    def __init__(self, app: Any, max_depth: int = _MAX_DEPTH) -> None:
        self._app = app
        self._max_depth = max_depth

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection; see ASGI."""
        if scope["type"] != "http" or _is_form(scope):
            await self._app(scope, receive, send)
            return
        messages = await _received(receive)
        body = b"".join(message.get("body", b"") for message in messages)
        if nesting_depth(body, enough=self._max_depth) > self._max_depth:
            await _refuse(send, self._max_depth)
            return
        messages.reverse()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


def _is_form(scope: Message) -> bool:
    kinds = (value for name, value in scope.get("headers", ()) if name == b"content-type")
    kind: bytes = next(kinds, b"")  # the first counts, as in vLLM
    forms = (b"multipart/", b"application/x-www-form-urlencoded")
    return kind.strip().lower().startswith(forms)


async def _received(receive: Receive) -> list[Message]:
    """All messages of a request's body, or those until the client has disconnected."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


async def _refuse(send: Send, max_depth: int) -> None:
    error = {
        "message": f"The request body is nested deeper than {max_depth} levels, the most that this "
        "server accepts; flatten it.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
