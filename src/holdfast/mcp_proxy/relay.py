"""Decides where each message between an MCP client and a server goes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.jsonrpc import INVALID_REQUEST, ErrorData

from holdfast.mcp_proxy.early_calls import EarlyCall, EarlyCalls
from holdfast.mcp_proxy.session_calls import Call, SessionCalls
from holdfast.mcp_proxy.tool_traits import read_traits
from holdfast.policies.calls import KnownResult

__all__ = ["Relay", "Routed"]

_PROTOCOL_META: Final = "io.modelcontextprotocol/"  # what each request has to carry since 2026


@dataclass(slots=True)
class Routed:
    """Messages to send, in their order.

    Attributes:
        to_client: To the client.
        to_server: To the server.
        is_answer: Whether a tool call of the client is answered: time for `start_early`.
    """

    to_client: list[JSONRPCMessage] = field(default_factory=list)
    to_server: list[JSONRPCMessage] = field(default_factory=list)
    is_answer: bool = False


@dataclass(slots=True)
class _Asked:
    """A call of the client that has no answer yet.

    Attributes:
        request: What the client sent.
        call: What is known of it.
        early: The early call that it waits for; None if it was sent itself.
    """

    request: JSONRPCRequest
    call: Call
    early: EarlyCall | None


class Relay:
    """Decides message by message; all but remembered and early calls pass unchanged.

    Early calls have ids that no client can know. Neither their errors nor what a server asks for
    their sake reach the client.

    Args:
        calls: Of the session.
        early_calls: Makes calls early; None makes none.

    Attributes:
        num_asked: Tool calls of the client (count).
        is_speculating: Whether calls may be made early.
    """

    def __init__(self, calls: SessionCalls, early_calls: EarlyCalls | None = None) -> None:
        self._session = calls
        self._early_calls = early_calls
        self.num_asked = 0
        self.is_speculating = early_calls is not None
        self._calls: dict[RequestId, _Asked] = {}
        self._early: dict[RequestId, EarlyCall] = {}
        self._id_prefix = f"holdfast-{secrets.token_hex(16)}-"
        self._num_early = 0
        self._meta: dict[str, Any] = {}
        self._lists: dict[RequestId, bool] = {}  # by request; whether it is the first page
        self._initializing: RequestId | None = None
        self._version: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers of messages to the server, by the agreed version."""
        return {} if self._version is None else {"mcp-protocol-version": self._version}

    def from_client(self, message: JSONRPCMessage) -> Routed:
        """Take in a client's message. Mutates."""
        if isinstance(message, JSONRPCNotification):
            number = (message.params or {}).get("requestId")
            if message.method == "notifications/cancelled" and self._cancel(number):
                return Routed()  # the server does not know the call
            return Routed(to_server=[message])
        if isinstance(message, JSONRPCRequest):
            params = message.params or {}
            match message.method:
                case "initialize":
                    self._initializing = message.id
                case "tools/list":
                    self._lists[message.id] = params.get("cursor") is None
                case "tools/call":
                    return self._ask(message, params)
        return Routed(to_server=[message])

    def from_server(self, message: JSONRPCMessage) -> Routed:
        """Take in a server's message. Mutates."""
        match message:
            case JSONRPCResponse(id=number, result=result):
                return self._answer(message, number, result)
            case JSONRPCError(id=number) if number is not None:
                return self._answer(message, number, None)
            case JSONRPCRequest(id=number, method=method) if self._early and method != "ping":
                assert self._early_calls is not None
                self._early_calls.refuse()
                if not self._calls:
                    error = ErrorData(code=INVALID_REQUEST, message="no client made this call")
                    return Routed(to_server=[JSONRPCError(jsonrpc="2.0", id=number, error=error)])
            case JSONRPCNotification(method="notifications/tools/list_changed"):
                self._session.forget_tools()
        return Routed(to_client=[message])

    def start_early(self) -> list[JSONRPCRequest]:
        """Calls to send to the server before the client asks for them. Mutates.

        They are to be sent before `from_client` is called again.
        """
        if self._early_calls is None or self._calls:
            return []
        started = []
        for early in self._early_calls.start():
            self._num_early += 1
            number = f"{self._id_prefix}{self._num_early}"
            self._early[number] = early
            started.append(self._request(number, early))
        return started

    def _ask(self, request: JSONRPCRequest, params: Mapping[str, Any]) -> Routed:
        self.num_asked += 1
        self._cancel(request.id)  # a client that uses an id twice
        self._keep_meta(params)
        call = self._session.begin(params)
        recalled = self._session.recall(call)
        if recalled is not None:
            self._session.count_answer(*recalled)
        outcome: KnownResult | EarlyCall | None = recalled[1] if recalled else None
        dropped: list[JSONRPCMessage] = []
        if self._early_calls is not None:
            outcome = self._early_calls.asked(call, recalled[1] if recalled else None)
            drop = self._early_calls.drop_all if call.is_change else self._early_calls.drop_old
            dropped = self._cancel_early(drop())
        if isinstance(outcome, KnownResult):
            self._session.answer(call, outcome.result, outcome)
            result = dict(outcome.result)
            answer = JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)
            return Routed([answer], dropped, is_answer=True)
        self._calls[request.id] = _Asked(request, call, outcome)
        return Routed(to_server=dropped if outcome is not None else [*dropped, request])

    def _keep_meta(self, params: Mapping[str, Any]) -> None:
        """Keep what each request has to carry, for early calls."""
        meta = params.get("_meta")
        meta = meta if isinstance(meta, Mapping) else {}
        self._meta = {key: meta[key] for key in meta if key.startswith(_PROTOCOL_META)}

    def _answer(
        self, message: JSONRPCMessage, number: RequestId, result: dict[str, Any] | None
    ) -> Routed:
        if isinstance(number, str) and number.startswith(self._id_prefix):
            return self._end_early(number, result)
        asked = self._calls.pop(number, None)
        if asked is not None:
            self._session.end(asked.call, result)
            return Routed([message], is_answer=True)
        is_first_page = self._lists.pop(number, None)
        if is_first_page is not None and result is not None:
            if is_first_page:
                self._session.forget_tools()
            self._session.learn_tools(read_traits(result))
        if number == self._initializing and result is not None:
            version = result.get("protocolVersion")
            self._version = version if isinstance(version, str) else None
        return Routed(to_client=[message])

    def _end_early(self, number: RequestId, result: dict[str, Any] | None) -> Routed:
        early = self._early.pop(number, None)
        if early is None or self._early_calls is None:
            return Routed()  # it was dropped
        final = self._early_calls.end(early, result)
        for waiting, asked in self._calls.items():
            if asked.early is not early:
                continue
            if final is not None:
                del self._calls[waiting]
                self._session.answer(asked.call, final, early.known)
                answer = JSONRPCResponse(jsonrpc="2.0", id=waiting, result=dict(final))
                return Routed([answer], is_answer=True)
            asked.early = None
            return Routed(to_server=[asked.request])
        return Routed()

    def _request(self, number: RequestId, early: EarlyCall) -> JSONRPCRequest:
        params: dict[str, Any] = {
            "name": early.prediction.tool,
            "arguments": dict(early.prediction.arguments),
        }
        if self._meta:
            params["_meta"] = self._meta
        return JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call", params=params)

    def _cancel_early(self, dropped: list[EarlyCall]) -> list[JSONRPCMessage]:
        """Tell the server that early calls are not needed."""
        numbers = [number for number, early in self._early.items() if early in dropped]
        for number in numbers:
            del self._early[number]
        return [_cancellation(number) for number in numbers]

    def _cancel(self, number: object) -> bool:
        """Forget a call; returns whether the server does not know it."""
        asked = self._calls.pop(number, None) if isinstance(number, (int, str)) else None
        if asked is None:
            return False
        self._session.cancel(asked.call)
        if asked.early is None or self._early_calls is None:
            return False
        self._early_calls.leave(asked.early)
        return True


def _cancellation(number: RequestId) -> JSONRPCNotification:
    return JSONRPCNotification(
        jsonrpc="2.0", method="notifications/cancelled", params={"requestId": number}
    )
