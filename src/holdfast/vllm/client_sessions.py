"""ASGI middleware that tells the scheduler who sends a request, and its hints.

Clients name their sessions in headers and fields of their own, of which vLLM passes few to its
scheduler. This reads them by the table of clients, and adds one identity record to the request's
`vllm_xargs`, beside a copy of the fields with hints that vLLM would drop. It sets `X-Session-ID`
too. `holdfast serve` installs it; elsewhere give
`vllm serve --middleware holdfast.vllm.client_sessions.ClientSessions`.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from holdfast.core.client_identity import BODY_FIELDS, ClientIdentity, identify
from holdfast.core.hints import CARRIER_KEY
from holdfast.core.prompt_change import ChangeKind
from holdfast.core.prompt_history import PromptHistory, stream_of
from holdfast.core.request_body import RequestBody
from holdfast.vllm.client_body import hint_fields, is_side_shape, with_entries
from holdfast.vllm.compat import messages_take_xargs
from holdfast.vllm.shared_body import shared_body

__all__ = ["ClientSessions"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADER: Final = b"x-session-id"
_PREFIX: Final = "holdfast_"
_PATHS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
_logger = logging.getLogger(__name__)


class ClientSessions:
    """Adds an identity record and hints to requests, and changes nothing else.

    It finds as well what makes a prompt not extend its session's last one, by fingerprints, and
    adds the name of that.

    It buffers the JSON body of a request for text until it is complete, as the endpoints do. Other
    bodies, compressed ones among them, pass as they are, and so does JSON that vLLM refuses.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._has_failed = False
        self._history = PromptHistory()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection; see ASGI."""
        if scope["type"] == "http":
            messages = await _received(receive) if _is_for_text(scope) else []
            try:
                scope, messages = self._identified(scope, messages)
            except Exception:
                if not self._has_failed:
                    self._has_failed = True
                    _logger.exception("Holdfast cannot read who sends a request; it goes on.")
            if messages:
                receive = _replay(messages, receive)
        await self._app(scope, receive, send)

    def _identified(self, scope: Message, messages: list[Message]) -> tuple[Message, list[Message]]:
        """The request with its identity record and hints."""
        headers = _headers_of(scope)
        is_complete = bool(messages) and messages[-1]["type"] == "http.request"
        text = b"".join(m.get("body", b"") for m in messages) if is_complete else b""
        body = shared_body(scope, text)
        if body is None:
            return _with_headers(scope, identify(headers), None), messages
        is_side = is_side_shape(body)
        identity = identify(headers, body.values(BODY_FIELDS), is_side_shape=is_side)
        change = None if identity.is_side_call else self._change(identity, headers, body)
        record = _record(identity, hint_fields(body), change)
        new = _with_record(body, scope["path"], record)
        if new is None or new == text:
            return _with_headers(scope, identity, None), messages
        message = {"type": "http.request", "body": new, "more_body": False}
        return _with_headers(scope, identity, len(new)), [message]

    def _change(
        self, identity: ClientIdentity, headers: Mapping[str, str], body: RequestBody
    ) -> ChangeKind | None:
        """What changed in the prompt since its session's last one; remembers it. Mutates."""
        tenant = headers.get("authorization", "") + repr(body.value("cache_salt"))
        change = self._history.change(stream_of(identity.session_id, tenant, body), body)
        return None if change is None else change.kind


def _with_record(body: RequestBody, path: str, record: dict[str, object]) -> bytes | None:
    """The body with the record; None without one."""
    if not record:
        return None
    # Ids of different schemas do not belong together.
    names_stream = not record.keys().isdisjoint(("session_id", "parent_session_id"))
    stale = ("session_id", "parent_session_id") if names_stream else ()
    if path.endswith("/v1/messages") and not messages_take_xargs():
        own = body.value("kv_transfer_params")
        own = own.get("holdfast") if isinstance(own, dict) else None
        kept = own if isinstance(own, dict) else {}
        kept = {key: value for key, value in kept.items() if key not in stale}
        return with_entries(body, "kv_transfer_params", {"holdfast": {**kept, **record}})
    entries = {f"{_PREFIX}{key}": value for key, value in record.items()}
    return with_entries(body, "vllm_xargs", entries, [f"{_PREFIX}{key}" for key in stale])


def _record(
    identity: ClientIdentity, hint_fields: str, change: ChangeKind | None
) -> dict[str, object]:
    """The identity record: what the scheduler is told, without what is not known."""
    record: dict[str, object] = {
        "session_id": identity.session_id,
        "parent_session_id": identity.parent_session_id,
        "agent_id": identity.agent_id,
        "workflow_id": identity.workflow_id,
        "client": identity.client,
        "final": int(identity.is_final),
        "side_call": int(identity.is_side_call),
        CARRIER_KEY.removeprefix(_PREFIX): hint_fields,
        "prompt_change": change,
        **dict(identity.announced),
    }
    return {key: value for key, value in record.items() if value}


def _is_for_text(scope: Message) -> bool:
    """Whether the request asks for text, with a JSON body that is not compressed."""
    if scope.get("method") != "POST" or not scope.get("path", "").endswith(_PATHS):
        return False
    headers = _headers_of(scope)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" and "content-encoding" not in headers


def _headers_of(scope: Message) -> dict[str, str]:
    """Headers by lower-case name; the first of several of one name counts, as in vLLM."""
    return {
        name.decode("latin-1").lower(): _header_text(value)
        for name, value in reversed(scope.get("headers", ()))
    }


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _with_headers(scope: Message, identity: ClientIdentity, num_bytes: int | None) -> Message:
    """The scope with vLLM's session header and the body's new length."""
    headers = [(name.lower(), value) for name, value in scope.get("headers", ())]
    old = next((value for name, value in headers if name == _HEADER), None)
    session_id = None if identity.session_id is None else identity.session_id.encode()
    if session_id == old and num_bytes is None:
        return scope
    headers = [(name, value) for name, value in headers if name != _HEADER]
    if session_id is not None:
        headers.append((_HEADER, session_id))
    if num_bytes is not None:
        headers = [
            (name, b"%d" % num_bytes if name == b"content-length" else value)
            for name, value in headers
        ]
    return {**scope, "headers": headers}


async def _received(receive: Receive) -> list[Message]:
    """All messages of a request's body, or those until the client has disconnected."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """The messages first, then what `receive` brings."""
    pending = list(reversed(messages))

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
