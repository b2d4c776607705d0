"""The gateway as an ASGI application, before its own server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from holdfast.gateway.app import Gateway
from holdfast.gateway.serving import runner_of

__all__ = ["Ingress"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEEP_ALIVE_S: Final = 30.0  # less than the server's own
_BUFFER_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 1 << 16
_MOST_CHUNKS: Final = 8  # read ahead of a body
_OF_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
_OF_SERVER: Final = frozenset((b"date", b"server"))


class Ingress:
    """An ASGI application whose answers are the gateway's own, byte for byte.

    The gateway listens on a Unix socket that only this user can reach. A client that leaves ends
    its request there; an answer that breaks off there raises, so that it breaks off here as well.

    Args:
        gateway: What is served.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._runner = runner_of(gateway)
        self._directory = TemporaryDirectory(prefix="holdfast-")

    async def start(self) -> None:
        """Listen; requests may come from then on. Mutates."""
        path = str(Path(self._directory.name) / "gateway")
        await self._runner.setup()
        await web.UnixSite(self._runner, path).start()
        self._client = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=_BUFFER_BYTES,
            max_line_size=_HEAD_BYTES,
            max_field_size=_HEAD_BYTES,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Listen no more; open answers get ten seconds to end. Mutates."""
        await self._runner.cleanup()
        await self._client.close()
        self._directory.cleanup()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"expected a request by HTTP, not by {scope['type']}")
        body = _Body()
        passing = asyncio.ensure_future(self._pass(scope, body, send))
        leaving = asyncio.ensure_future(body.read(receive))
        try:
            await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            leaving.cancel()
            passing.cancel()
            await asyncio.gather(passing, leaving, return_exceptions=True)

    async def _pass(self, scope: Message, body: _Body, send: Send) -> None:
        async with self._client.request(
            scope["method"],
            URL("http://gateway" + _target(scope), encoded=True),
            headers=_headers(scope),
            data=body.chunks() if _has_body(scope) else None,
            allow_redirects=False,
        ) as answer:
            hidden = _OF_CONNECTION | _OF_SERVER
            headers = [(k.lower(), v) for k, v in answer.raw_headers if k.lower() not in hidden]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Body:
    """The body of a request as it comes."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_CHUNKS)

    async def read(self, receive: Receive) -> None:
        """Read until the client has left."""
        is_whole = False
        while (message := await receive())["type"] != "http.disconnect":
            if is_whole:
                continue
            if chunk := message.get("body", b""):
                await self._chunks.put(chunk)
            if not message.get("more_body", False):
                is_whole = True
                await self._chunks.put(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield its parts."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk


def _has_body(scope: Message) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _headers(scope: Message) -> CIMultiDict[str]:
    return CIMultiDict(
        (name.decode("latin-1"), value.decode("utf-8", "replace"))
        for name, value in scope["headers"]
        if name not in _OF_CONNECTION
    )


def _target(scope: Message) -> str:
    """Path below the application's root, and query, as the client wrote them."""
    raw = scope.get("raw_path") or b""
    path = raw.decode("latin-1") or quote(scope["path"])
    path = path.removeprefix(scope.get("root_path", "").rstrip("/"))
    query = scope.get("query_string", b"").decode("latin-1")
    return f"/{path.lstrip('/')}" + (f"?{query}" if query else "")
