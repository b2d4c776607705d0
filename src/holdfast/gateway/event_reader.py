"""Reads an engine's KV events over ZMQ, and asks again for missed ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import decode_events

__all__ = ["KvEventReader"]

logger = logging.getLogger(__name__)

_SEQUENCE_BYTES: Final = 8
_END_OF_REPLAY: Final = (-1).to_bytes(_SEQUENCE_BYTES, "big", signed=True)
_REPLAY_S: Final = 10.0
_MOST_BATCHES: Final = 100_000


class KvEventReader:
    """Subscribes to an engine's events and asks again for missed ones.

    Args:
        name: The engine's, for log lines.
        endpoint: Where the engine publishes (`--kv-events-config` `endpoint`).
        replay_endpoint: Where it repeats (`replay_endpoint`); None if it does not.
        residency: Takes the events in.
    """

    def __init__(
        self, name: str, endpoint: str, replay_endpoint: str | None, residency: EventResidency
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._replay_endpoint = replay_endpoint
        self._residency = residency
        self._expected: int | None = None

    async def run(self) -> None:
        """Read events until cancelled.

        Raises:
            ImportError: pyzmq is not installed.
        """
        import zmq
        import zmq.asyncio

        context = zmq.asyncio.Context.instance()
        with context.socket(zmq.SUB) as socket:
            socket.set_hwm(_MOST_BATCHES)
            socket.subscribe(b"")
            socket.connect(self._endpoint)
            while True:
                frames = await socket.recv_multipart()
                with self._noted():
                    await self._take(int.from_bytes(frames[-2], "big"), frames[-1])

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Go on after a malformed batch, without what was known before it."""
        try:
            yield
        except (ValueError, IndexError) as error:
            logger.warning("engine %s: KV events are not readable: %s", self._name, error)
            self._residency.clear()

    async def _take(self, number: int, payload: bytes) -> None:
        first = 0 if self._expected is None else self._expected
        if number < first:  # the engine has restarted
            self._residency.clear()
            first = 0
        if number > first and not await self._replay(first, number):
            # What it held before is not known; what comes from now on is.
            self._residency.clear()
        self._expected = number + 1
        self._apply(payload)
        self._residency.is_current = True

    def _apply(self, payload: bytes) -> None:
        for event in decode_events(payload):
            self._residency.apply(event)

    async def _replay(self, first: int, end: int) -> bool:
        """Take in the batches from `first` to before `end`; whether all came."""
        if self._replay_endpoint is None:
            return False
        try:
            async with asyncio.timeout(_REPLAY_S):
                return await self._repeated(first, end)
        except TimeoutError:
            logger.warning("engine %s repeats no KV events; some are lost", self._name)
            return False

    async def _repeated(self, first: int, end: int) -> bool:
        import zmq
        import zmq.asyncio

        expected = first
        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as socket:
            socket.set(zmq.LINGER, 0)
            socket.connect(self._replay_endpoint or "")
            await socket.send_multipart([b"", first.to_bytes(_SEQUENCE_BYTES, "big")])
            while True:
                number_bytes, payload = (await socket.recv_multipart())[-2:]
                number = int.from_bytes(number_bytes, "big")
                if number_bytes == _END_OF_REPLAY or expected == end:
                    return expected == end
                if number == expected:
                    self._apply(payload)
                    expected += 1
                elif number > expected:
                    return False
