"""ASGI middleware that sets a request's session id from its client's own headers.

vLLM reads only `X-Session-ID`. Claude Code, Codex, OpenHands and others name their sessions in
headers of their own, from which this makes one `X-Session-ID` a session. A `session_id` in the body
takes precedence, as in vLLM. `holdfast serve` installs it; elsewhere give
`vllm serve --middleware holdfast.vllm.client_sessions.ClientSessions`.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from holdfast.core.session_id import session_id_from

__all__ = ["ClientSessions"]

Message = MutableMapping[str, Any]

_HEADER: Final = b"x-session-id"


class ClientSessions:
    """Sets `X-Session-ID` from the headers of known clients and changes nothing else.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Handle one connection; see ASGI."""
        if scope["type"] == "http":
            scope = _with_session_id(scope)
        await self._app(scope, receive, send)


def _with_session_id(scope: Message) -> Message:
    headers = [(name.lower(), value) for name, value in scope.get("headers", ())]
    # The first of several headers of one name counts, as in vLLM.
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(headers)}
    session_id = session_id_from(named)
    if session_id is None or session_id == named.get("x-session-id"):
        return scope
    others = [(name, value) for name, value in headers if name != _HEADER]
    return {**scope, "headers": [*others, (_HEADER, session_id.encode("latin-1"))]}
