"""Reads an engine's KV events over ZMQ, and asks again for missed ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterator
from typing import Final

from holdfast.gateway.event_residency import EventResidency
from holdfast.gateway.kv_events import KvBatch, decode_batch

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
        self._expected = 0
        self._published_s = -math.inf  # of the last batch

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
            with self._noted():
                # What the engine has stored already; what comes meanwhile waits in the socket.
                self._residency.is_current = await self._replay(0, None)
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
        batch = self._decoded(number, payload)
        if number < self._expected:
            if batch.published_s <= self._published_s:
                return  # repeated before it came
            self._residency.clear()  # the engine has restarted
            self._expected = 0
        if number > self._expected and not await self._replay(self._expected, number):
            # What it held before is not known; what comes from now on is.
            self._residency.clear()
        self._apply(number, batch)
        self._residency.is_current = True

    def _decoded(self, number: int, payload: bytes) -> KvBatch:
        try:
            return decode_batch(payload)
        except ValueError:
            self._expected = number + 1  # to ask for it again would not help
            raise

    def _apply(self, number: int, batch: KvBatch) -> None:
        for event in batch.events:
            self._residency.apply(event)
        self._expected = number + 1
        self._published_s = batch.published_s

    async def _replay(self, first: int, end: int | None) -> bool:
        """Take in the batches from `first` to before `end`; whether all came.

        Without an end, takes in what the engine still has; whether it has any.
        """
        if self._replay_endpoint is None:
            return False
        try:
            async with asyncio.timeout(_REPLAY_S):
                return await self._repeated(first, end)
        except TimeoutError:
            logger.warning("engine %s repeats no KV events; some are lost", self._name)
            return False

    async def _repeated(self, first: int, end: int | None) -> bool:
        import zmq
        import zmq.asyncio

        with zmq.asyncio.Context.instance().socket(zmq.DEALER) as socket:
            socket.set(zmq.LINGER, 0)
            socket.connect(self._replay_endpoint or "")
            await socket.send_multipart([b"", first.to_bytes(_SEQUENCE_BYTES, "big")])
            while True:
                number_bytes, payload = (await socket.recv_multipart())[-2:]
                number = int.from_bytes(number_bytes, "big")
                if number_bytes == _END_OF_REPLAY or self._expected == end:
                    return self._expected > first if end is None else self._expected == end
                if number > self._expected and end is not None:
                    return False
                if number >= self._expected:
                    self._apply(number, self._decoded(number, payload))
