"""ASGI middleware that says in answers why a prompt was not cached.

It speaks the cache diagnostics of both hosted APIs: Anthropic's `diagnostics.previous_message_id`
and OpenAI's `prompt_cache_options.comparison_response_id`. Each answer's prompt is remembered by a
fingerprint, without its text; each tenant's answers are known to that tenant only. `holdfast serve`
installs it; elsewhere give
`vllm serve --middleware holdfast.vllm.cache_diagnostics.CacheDiagnostics`.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from holdfast.core.cache_dialects import DIALECTS, Answered, Asked, CacheDialect
from holdfast.vllm.event_stream import EventStream
from holdfast.vllm.shared_body import shared_body

__all__ = ["CacheDiagnostics"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Key = tuple[str, bytes, str]  # dialect, tenant, id of the answer

_MAX_BYTES: Final = 32 << 20  # of all fingerprints
_MAX_ANSWER_BYTES: Final = 16 << 20
_logger = logging.getLogger(__name__)


class CacheDiagnostics:
    """Adds diagnostics to answers whose requests ask for them, and changes no others.

    Ids of another server process, of another tenant and of answers long ago are not known here;
    the API's own reason for that is given, not a change of the prompt.

    Args:
        app: The application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._answers: OrderedDict[_Key, Answered] = OrderedDict()
        self._num_bytes = 0
        self._has_failed = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection; see ASGI."""
        dialect = _dialect_of(scope)
        if dialect is None:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
        pending = list(reversed(messages))

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        text = b"".join(message.get("body", b"") for message in messages)
        asked = self._guarded(lambda: _asked(dialect, scope, text))
        if asked is None:
            await self._app(scope, replay, send)
            return
        tenant = _tenant_of(scope, asked)
        answer = _Answer(send, lambda part: self._guarded(lambda: self._shown(asked, tenant, part)))
        await self._app(scope, replay, answer)

    def _shown(self, asked: Asked, tenant: bytes, answer: dict[str, Any]) -> dict[str, Any] | None:
        """The fields to add to an answer, or to an event's; remembers it. Mutates."""
        dialect = asked.dialect
        answered = dialect.answered(asked, answer)
        if answered is None:
            return None
        self._remember((dialect.name, tenant, answered.answer_id), answered)
        if not asked.wants_diagnostics:
            return None
        earlier = self._answers.get((dialect.name, tenant, asked.compared_id or ""))
        return dialect.diagnostics(asked, answered, earlier)

    def _remember(self, key: _Key, answered: Answered) -> None:
        old = self._answers.pop(key, None)
        self._num_bytes -= 0 if old is None else old.num_bytes
        self._answers[key] = answered
        self._num_bytes += answered.num_bytes
        while self._num_bytes > _MAX_BYTES and len(self._answers) > 1:
            _, dropped = self._answers.popitem(last=False)
            self._num_bytes -= dropped.num_bytes

    def _guarded(self, act: Callable[[], Any]) -> Any:
        """The result; None after an error of ours, which is logged once."""
        try:
            return act()
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                _logger.exception("Holdfast cannot diagnose a prompt; the request goes on.")
            return None


class _Answer:
    """Passes an answer on, with what `shown` adds to it.

    Args:
        send: See ASGI.
        shown: Given a JSON answer, or an event's object, the fields to add to it, or None.
    """

    def __init__(
        self, send: Send, shown: Callable[[dict[str, Any]], dict[str, Any] | None]
    ) -> None:
        self._send = send
        self._shown = shown
        self._start: Message | None = None  # withheld, as the length may change
        self._body = b""
        self._stream: EventStream | None = None

    async def __call__(self, message: Message) -> None:
        """Send one message of the answer; see ASGI."""
        if message["type"] == "http.response.start":
            kinds = dict(message.get("headers", ()))
            kind = kinds.get(b"content-type", b"")
            if message["status"] == 200 and kind.startswith(b"text/event-stream"):
                self._stream = EventStream(self._shown)
            elif message["status"] == 200 and kind.startswith(b"application/json"):
                self._start = message
                return
        elif message["type"] == "http.response.body":
            body, is_last = message.get("body", b""), not message.get("more_body")
            if self._stream is not None:
                message = {**message, "body": self._stream.passed(body, is_last=is_last)}
            elif self._start is not None:
                self._body += body
                if not is_last and len(self._body) <= _MAX_ANSWER_BYTES:
                    return
                await self._send_whole(is_last=is_last)
                return
        await self._send(message)

    async def _send_whole(self, *, is_last: bool) -> None:
        start, body = self._start, self._body
        assert start is not None
        self._start = None
        if is_last:
            body = EventStream.with_fields(body, self._shown)
            headers = [
                (name, b"%d" % len(body) if name.lower() == b"content-length" else value)
                for name, value in start.get("headers", ())
            ]
            start = {**start, "headers": headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})


def _asked(dialect: CacheDialect, scope: Message, text: bytes) -> Asked | None:
    body = shared_body(scope, text)
    return None if body is None else dialect.asked(body)


def _dialect_of(scope: Message) -> CacheDialect | None:
    """The dialect of a request with a JSON body, by its path."""
    if scope["type"] != "http" or scope.get("method") != "POST":
        return None
    headers = dict(reversed(list(scope.get("headers", ()))))
    if b"content-encoding" in headers:
        return None
    path = scope.get("path", "")
    return next((one for one in DIALECTS if path.endswith(one.path)), None)


def _tenant_of(scope: Message, asked: Asked) -> bytes:
    """A digest of what tells tenants apart: the salt and the key of the API."""
    secrets = [
        value
        for name, value in scope.get("headers", ())
        if name.lower() in (b"authorization", b"x-api-key")
    ]
    return hashlib.blake2b(
        b"\x00".join([asked.cache_salt.encode("utf-8", "surrogatepass"), *sorted(secrets)]),
        digest_size=16,
    ).digest()
