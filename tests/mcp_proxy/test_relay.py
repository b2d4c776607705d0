"""Messages pass unchanged, but for calls that are remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from mcp_types.jsonrpc import ErrorData

from holdfast.mcp_proxy.call_policies import CallPolicies
from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.relay import Relay, Routed
from holdfast.mcp_proxy.session_calls import SessionCalls
from holdfast.policies.registry import CALL_POLICIES

CLOSED = {"readOnlyHint": True, "openWorldHint": False}
TOOLS = [{"name": "read", "annotations": CLOSED}, {"name": "write"}]
TEXT = {"content": [{"type": "text", "text": "x"}]}


def unlisted(clock: Callable[[], float]) -> Relay:
    """A relay of a server whose tools are not known."""
    policies = CallPolicies([CALL_POLICIES.build("result-memory", {})])
    stamp = FileStamp(b"", 0.0, 0)
    return Relay(SessionCalls(1, policies, lambda _: stamp, clock, lambda: 100.0))


def relay(
    tools: list[dict[str, Any]] | None = None, clock: Callable[[], float] = lambda: 100.0
) -> Relay:
    made = unlisted(clock)
    made.from_client(request("list", "tools/list"))
    made.from_server(response("list", {"tools": TOOLS if tools is None else tools}))
    return made


def passes(made: Relay, message: JSONRPCMessage) -> bool:
    """Whether a client's message reaches the server, and nothing else happens."""
    return made.from_client(message) == Routed(to_server=[message])


def answer_of(made: Relay, message: JSONRPCMessage) -> JSONRPCMessage:
    """The proxy's own answer to a client's message."""
    routed = made.from_client(message)
    assert not routed.to_server
    (answer,) = routed.to_client
    return answer


def request(number: int | str, method: str, **params: Any) -> JSONRPCRequest:
    return JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params)


def response(number: int | str, result: dict[str, Any]) -> JSONRPCResponse:
    return JSONRPCResponse(jsonrpc="2.0", id=number, result=result)


def notification(method: str, **params: Any) -> JSONRPCNotification:
    return JSONRPCNotification(jsonrpc="2.0", method=method, params=params)


def call(number: int | str, tool: str = "read") -> JSONRPCRequest:
    return request(number, "tools/call", name=tool, arguments={})


def test_second_call_is_answered_under_its_own_id() -> None:
    made = relay()
    assert passes(made, call(1))
    made.from_server(response(1, TEXT))
    assert answer_of(made, call("two")) == response("two", TEXT)


def test_ids_of_other_types_are_other_calls() -> None:
    made = relay()
    made.from_client(call(1))
    made.from_server(response("1", TEXT))
    assert passes(made, call(2))


def test_tools_are_changes_until_they_are_listed() -> None:
    made = unlisted(lambda: 1.0)
    made.from_client(call(1))
    made.from_server(response(1, TEXT))
    assert passes(made, call(2))


def test_later_pages_add_and_a_new_list_replaces() -> None:
    made = relay()
    made.from_client(request(1, "tools/list", cursor="more"))
    made.from_server(response(1, {"tools": [{"name": "other", "annotations": CLOSED}]}))
    for tool in ("read", "other"):
        made.from_client(call(2, tool))
        made.from_server(response(2, TEXT))
        assert answer_of(made, call(3, tool)) == response(3, TEXT)

    made.from_client(request(4, "tools/list"))
    made.from_server(response(4, {"tools": []}))
    assert passes(made, call(5))


def test_changed_list_is_a_list_that_is_not_known() -> None:
    made = relay()
    made.from_client(call(1))
    made.from_server(response(1, TEXT))
    made.from_server(notification("notifications/tools/list_changed"))
    assert passes(made, call(2))


def test_error_ends_a_change() -> None:
    made = relay()
    made.from_client(call(1, "write"))
    error = ErrorData(code=-32603, message="failed")
    made.from_server(JSONRPCError(jsonrpc="2.0", id=1, error=error))
    made.from_client(call(2))
    made.from_server(response(2, TEXT))
    assert answer_of(made, call(3)) == response(3, TEXT)


def test_cancelled_read_is_not_remembered() -> None:
    made = relay()
    made.from_client(call(1))
    made.from_client(notification("notifications/cancelled", requestId=1))
    made.from_server(response(1, TEXT))
    assert passes(made, call(2))


def test_cancelled_change_ends_after_a_minute() -> None:
    times = iter([100.0, 100.0, 161.0])
    made = relay(clock=lambda: next(times, 161.0))
    made.from_client(call(1, "write"))
    made.from_client(notification("notifications/cancelled", requestId=1))
    for number in (2, 3):
        made.from_client(call(number))
        made.from_server(response(number, TEXT))
    assert answer_of(made, call(4)) == response(4, TEXT)


def test_odd_messages_pass() -> None:
    made = relay()
    for odd in (
        request(1, "tools/call"),
        request(2, "tools/call", name=["read"], arguments="text"),
        notification("notifications/cancelled", requestId={"a": 1}),
        notification("notifications/cancelled"),
        response(99, {"tools": 3}),
        request(3, "sampling/createMessage"),
    ):
        assert passes(made, odd)
    made.from_client(request(4, "tools/list"))
    made.from_server(response(4, {"tools": [3, {"name": 1}, {"name": "x", "annotations": []}]}))
    made.from_server(JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=1, message="")))


def test_agreed_version_goes_into_headers() -> None:
    made = relay()
    assert made.headers == {}
    made.from_client(request(0, "initialize", protocolVersion="2025-11-25"))
    made.from_server(response(0, {"protocolVersion": "2025-06-18"}))
    assert made.headers == {"mcp-protocol-version": "2025-06-18"}
