"""Bodies on their way: those of long requests, and answers that break off."""

from __future__ import annotations

import io
from typing import Final

from aiohttp import web

from holdfast.gateway.api import Dialect, error_event

__all__ = ["break_off", "payload_of"]

_CHUNKED_BYTES: Final = 1 << 20


def payload_of(body: bytes) -> bytes | io.BytesIO | None:
    """The body as aiohttp takes it, a long one to be sent in chunks. Pure."""
    return io.BytesIO(body) if len(body) > _CHUNKED_BYTES else body or None


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
