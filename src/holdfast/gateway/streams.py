"""Bodies on their way: long requests, broken answers, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from holdfast.gateway.answer_tail import KEPT_BYTES, is_whole
from holdfast.gateway.api import Dialect, error_event

__all__ = ["PassedBytes", "break_off", "drop_frames", "has_left", "payload_of"]

_SLICE_BYTES: Final = 1 << 20
_BEGINNING_BYTES: Final = 4096  # of an answer, for its id


class PassedBytes:
    """Both ends of an answer that passes.

    Attributes:
        begin: Its first bytes.
        end: Its last bytes.
    """

    def __init__(self) -> None:
        self.begin = self.end = b""

    def add(self, chunk: bytes) -> None:
        """Take in bytes that the client was sent. Mutates."""
        if len(self.begin) < _BEGINNING_BYTES:
            self.begin += chunk[: _BEGINNING_BYTES - len(self.begin)]
        self.end = (self.end + chunk)[-KEPT_BYTES:]

    @contextlib.contextmanager
    def all_may_leave(self, request: web.Request) -> Iterator[None]:
        """Let a client leave that has the last event of its stream.

        It has its whole answer: Codex closes the connection before the engine ends the body.
        """
        try:
            yield
        except (asyncio.CancelledError, ConnectionError) as error:
            if not (has_left(request) and is_whole(self.end)):
                raise
            task = asyncio.current_task()
            if task is not None and isinstance(error, asyncio.CancelledError):
                task.uncancel()


def has_left(request: web.Request) -> bool:
    """Whether the client has closed its connection. Pure."""
    return request.transport is None or request.transport.is_closing()


def drop_frames(error: BaseException) -> None:
    """Let go of what the frames of an error that is over hold. Mutates it.

    Its causes likewise: aiohttp's frames and answers hold their errors, which hold these frames,
    and so the request.
    """
    over: BaseException | None = error
    while over is not None:
        over.__traceback__ = None
        over = over.__cause__ or over.__context__


class BodyPayload(aiohttp.Payload):
    """A body on its way to an engine, sent in slices and never copied.

    Args:
        body: The body.
    """

    _autoclose = True

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._size = len(body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text."""
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        writer.send_headers()
        view = memoryview(self._value)
        for start in range(0, len(view), _SLICE_BYTES):
            await writer.write(view[start : start + _SLICE_BYTES])


def payload_of(body: bytes) -> BodyPayload | None:
    """The body as aiohttp takes it. Pure."""
    return BodyPayload(body) if body else None


async def break_off(
    request: web.Request, response: web.StreamResponse, dialect: Dialect, end: bytes, message: str
) -> None:
    """End an answer that broke off: by an error event, or a closed connection.

    Args:
        request: The client's.
        response: What has been sent of the answer.
        dialect: Shape of the event.
        end: Last bytes of the answer.
        message: Text of the event.
    """
    if response.content_type != "text/event-stream":
        if request.transport is not None:
            request.transport.abort()  # a shorter body must not look whole
        return
    boundary = b"" if not end or end.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
    await response.write(boundary + error_event(dialect, message))
    await response.write_eof()
