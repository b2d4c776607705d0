"""Passes bytes between a client and an engine, and keeps what the engine answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ["AnswerRelay", "body_of"]

_REQUEST = re.compile(rb"(?:GET|POST) \S+ HTTP/1\.1\r\n")
_PART_BYTES = 1 << 16


class AnswerRelay:
    """Between an HTTP client and an engine; changes nothing.

    Two answers of one engine differ in ids, times and the sizes of chunks, so that a proxy's can be
    compared with the very one that it was given only.

    Args:
        url: The engine's.
        name_header: Header by which requests name their answers.

    Attributes:
        url: Where it listens.
        answers: Whole answers to named requests, as they came over the wire.
    """

    def __init__(self, url: str, name_header: str) -> None:
        self.url = ""
        self.answers: dict[str, bytearray] = {}
        self._engine = urlsplit(url)
        self._name = re.compile(rb"\r\n%s: *([^\r\n]+)\r\n" % name_header.encode(), re.IGNORECASE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AnswerRelay]:
        """Listen meanwhile."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._relay(reader, writer)
            except asyncio.CancelledError:  # by us, at the end; asyncio would log it
                pass
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        down, up = await asyncio.open_connection(self._engine.hostname, self._engine.port)
        answer = bytearray()

        async def upwards() -> None:
            nonlocal answer
            while part := await reader.read(_PART_BYTES):
                # One request is under way in a connection, so each begins a part.
                if _REQUEST.match(part):
                    named = self._name.search(part)
                    answer = bytearray()
                    if named is not None:
                        self.answers[named[1].decode()] = answer
                up.write(part)
                await up.drain()
            up.close()

        async def downwards() -> None:
            while part := await down.read(_PART_BYTES):
                answer.extend(part)
                writer.write(part)
                await writer.drain()
            writer.close()

        try:
            await asyncio.gather(upwards(), downwards())
        except ConnectionError:
            pass
        finally:
            up.close()


def body_of(answer: bytes) -> bytes:
    """The body of an HTTP answer. Pure."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not (num_bytes := int(size, 16)):
            return body
        body += rest[:num_bytes]
        rest = rest[num_bytes + 2 :]
