"""Passes messages between an MCP client and a server."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
from anyio.abc import TaskGroup
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import JSONRPCMessage

from holdfast.mcp_proxy.relay import Relay, Routed

__all__ = ["Streams", "run_relay"]

logger = logging.getLogger(__name__)

_THINKING_S: Final = 0.02  # a client that calls again before has asked no model
_SETTLED_S: Final = 1.1  # by then what a call has changed counts as settled

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]
"""What is received from one side, and what is sent to it."""


async def run_relay(client: Streams, server: Streams, relay: Relay) -> bool:
    """Pass messages both ways; returns whether the client ended it.

    A line that is no message is logged and dropped, as MCP's own sessions do.
    """
    # The transports end once nothing more can be sent.
    async with client[1], server[1], anyio.create_task_group() as tasks:
        pump = _Pump(client, server, relay, tasks)
        tasks.start_soon(pump.pass_to_server)
        tasks.start_soon(pump.pass_to_client)
    return pump.is_client_gone


class _Pump:
    def __init__(self, client: Streams, server: Streams, relay: Relay, tasks: TaskGroup) -> None:
        self.is_client_gone = False
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._relay = relay
        self._tasks = tasks
        self._ordering = anyio.Lock()  # what is decided first reaches the server first

    async def pass_to_server(self) -> None:
        async for message in _messages(self._from_client, "client"):
            async with self._ordering:
                routed = self._relay.from_client(message)
                await self._send(routed.to_server)
            await self._answer(routed)
        self.is_client_gone = True
        self._tasks.cancel_scope.cancel()

    async def pass_to_client(self) -> None:
        async for message in _messages(self._from_server, "server"):
            routed = self._relay.from_server(message)
            await self._answer(routed)
            if routed.to_server:
                self._tasks.start_soon(self._follow_up, routed.to_server)
        self._tasks.cancel_scope.cancel()

    async def _answer(self, routed: Routed) -> None:
        for message in routed.to_client:
            await self._to_client.send(SessionMessage(message))
        if routed.is_answer:
            self._tasks.start_soon(self._follow_up, ())

    async def _follow_up(self, messages: Sequence[JSONRPCMessage]) -> None:
        """Send what an answer leads to; reading goes on, as the server may wait for that."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async with self._ordering:
                await self._send(messages)
            num_asked = self._relay.num_asked
            for pause_s in (_THINKING_S, _SETTLED_S) if self._relay.is_speculating else ():
                await anyio.sleep(pause_s)
                if num_asked != self._relay.num_asked:
                    return
                async with self._ordering:
                    early = self._relay.start_early()
                    await self._send(early)
                if early:
                    return

    async def _send(self, messages: Sequence[JSONRPCMessage]) -> None:
        for message in messages:
            metadata = ClientMessageMetadata(headers=self._relay.headers)
            await self._to_server.send(SessionMessage(message, metadata))


async def _messages(
    stream: ReadStream[SessionMessage | Exception], side: str
) -> AsyncIterator[JSONRPCMessage]:
    async for item in stream:
        if isinstance(item, Exception):
            logger.warning("the %s sent what is no MCP message: %s", side, type(item).__name__)
        else:
            yield item.message
