"""Passes messages between an MCP client and a server; answers what is remembered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from holdfast.mcp_proxy.result_memory import Call, Remembered, ResultMemory
from holdfast.mcp_proxy.tool_traits import read_traits

__all__ = ["Relay", "Streams", "run_relay"]

logger = logging.getLogger(__name__)

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]
"""What is received from one side, and what is sent to it."""


class Relay:
    """Decides message by message; all but remembered calls pass unchanged.

    Args:
        memory: Of the server's results.
    """

    def __init__(self, memory: ResultMemory) -> None:
        self._memory = memory
        self._calls: dict[RequestId, Call] = {}
        self._lists: dict[RequestId, bool] = {}  # by request; whether it is the first page
        self._initializing: RequestId | None = None
        self._version: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of messages to the server, by the agreed version."""
        return {} if self._version is None else {"mcp-protocol-version": self._version}

    def from_client(self, message: JSONRPCMessage) -> JSONRPCResponse | None:
        """Take in a client's message; returns its answer, or None. Mutates."""
        if isinstance(message, JSONRPCNotification):
            if message.method == "notifications/cancelled":
                self._cancel((message.params or {}).get("requestId"))
            return None
        if not isinstance(message, JSONRPCRequest):
            return None
        params = message.params or {}
        match message.method:
            case "initialize":
                self._initializing = message.id
            case "tools/list":
                self._lists[message.id] = params.get("cursor") is None
            case "tools/call":
                return self._call(message.id, params)
        return None

    def from_server(self, message: JSONRPCMessage) -> None:
        """Take in a server's message, which is passed on. Mutates."""
        match message:
            case JSONRPCResponse(id=number, result=result):
                self._answered(number, result)
            case JSONRPCError(id=number) if number is not None:
                self._answered(number, None)
            case JSONRPCNotification(method="notifications/tools/list_changed"):
                self._memory.forget_tools()

    def _call(self, number: RequestId, params: Mapping[str, Any]) -> JSONRPCResponse | None:
        outcome = self._memory.begin(params)
        if isinstance(outcome, Remembered):
            return JSONRPCResponse(jsonrpc="2.0", id=number, result=outcome.result)
        self._cancel(number)  # a client that uses an id twice
        self._calls[number] = outcome
        return None

    def _answered(self, number: RequestId, result: dict[str, Any] | None) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._memory.end(call, result)
        is_first_page = self._lists.pop(number, None)
        if is_first_page is not None and result is not None:
            if is_first_page:
                self._memory.forget_tools()
            self._memory.learn_tools(read_traits(result))
        if number == self._initializing and result is not None:
            version = result.get("protocolVersion")
            self._version = version if isinstance(version, str) else None

    def _cancel(self, number: object) -> None:
        call = self._calls.pop(number, None) if isinstance(number, (int, str)) else None
        if call is not None:
            self._memory.cancel(call)


async def run_relay(client: Streams, server: Streams, relay: Relay) -> bool:
    """Pass messages both ways; returns whether the client ended it.

    A line that is no message is logged and dropped, as MCP's own sessions do.
    """
    is_client_gone = False
    from_client, to_client = client
    from_server, to_server = server

    async def pass_to_server() -> None:
        nonlocal is_client_gone
        async for item in from_client:
            if isinstance(item, Exception):
                logger.warning("the client sent what is no MCP message: %s", type(item).__name__)
                continue
            answer = relay.from_client(item.message)
            if answer is not None:
                await to_client.send(SessionMessage(answer))
                continue
            metadata = ClientMessageMetadata(headers=relay.headers)
            await to_server.send(SessionMessage(item.message, metadata))
        is_client_gone = True
        tasks.cancel_scope.cancel()

    async def pass_to_client() -> None:
        async for item in from_server:
            if isinstance(item, Exception):
                logger.warning("the server sent what is no MCP message: %s", type(item).__name__)
                continue
            relay.from_server(item.message)
            await to_client.send(SessionMessage(item.message))
        tasks.cancel_scope.cancel()

    # The transports end once nothing more can be sent.
    async with to_client, to_server, anyio.create_task_group() as tasks:
        tasks.start_soon(pass_to_server)
        tasks.start_soon(pass_to_client)
    return is_client_gone
