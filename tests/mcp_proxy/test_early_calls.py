"""Early calls of one session, message by message."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from mcp_types.jsonrpc import ErrorData

from holdfast.mcp_proxy.call_policies import CallPolicies
from holdfast.mcp_proxy.early_calls import EarlyCalls
from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.relay import Relay, Routed
from holdfast.mcp_proxy.session_calls import SessionCalls
from holdfast.policies.calls import Prediction, PredictionSettled
from holdfast.policies.registry import CALL_POLICIES

CLOSED = {"readOnlyHint": True, "openWorldHint": False}
TOOLS: list[dict[str, Any]] = [
    {"name": "status", "annotations": CLOSED},
    {"name": "diff", "annotations": CLOSED},
    {"name": "log", "annotations": CLOSED},
    {"name": "commit"},
]
TOOK_S = 0.5


class Rig:
    """A relay whose clock and server a test drives."""

    def __init__(
        self,
        tools: list[dict[str, Any]] | None = None,
        weight: float = 0.25,
        does_remember: bool = True,
    ) -> None:
        self.now_s = 100.0
        self.version = b""
        self.policy = CALL_POLICIES.build("speculation", {"waste_weight": weight})
        memory = [CALL_POLICIES.build("result-memory", {})] if does_remember else []
        policies = CallPolicies([*memory, self.policy])
        self.calls = SessionCalls(
            *(1, policies, lambda _: FileStamp(self.version, 0.0, 1)),
            *(lambda: self.now_s, lambda: self.now_s),
        )
        early_calls = EarlyCalls(self.calls, policies, lambda: self.now_s)
        self.counts = early_calls.counts
        self.relay = Relay(self.calls, early_calls)
        self.relay.from_client(JSONRPCRequest(jsonrpc="2.0", id="list", method="tools/list"))
        listed = {"tools": TOOLS if tools is None else tools}
        self.relay.from_server(JSONRPCResponse(jsonrpc="2.0", id="list", result=listed))
        self.number = 0

    def ask(self, tool: str, **arguments: Any) -> tuple[int, Routed]:
        self.number += 1
        params = {"name": tool, "arguments": arguments}
        request = JSONRPCRequest(jsonrpc="2.0", id=self.number, method="tools/call", params=params)
        return self.number, self.relay.from_client(request)

    def answer(self, number: Any, text: str = "x", **more: Any) -> Routed:
        result = {"content": [{"type": "text", "text": text}], **more}
        return self.relay.from_server(JSONRPCResponse(jsonrpc="2.0", id=number, result=result))

    def call(self, tool: str, **arguments: Any) -> Routed:
        """A call of the client, answered by the server unless the proxy answers it."""
        number, routed = self.ask(tool, **arguments)
        if routed.to_client:
            return routed
        self.now_s += TOOK_S
        return self.answer(number)

    def practise(self, times: int = 6) -> None:
        """Sessions in which status is followed by diff, and a commit ends it."""
        for _ in range(times):
            self.call("status", repo="/r")
            self.call("diff", repo="/r")
            self.call("commit", repo="/r")
            self.now_s += 1.0  # what a change has touched is settled then

    def early(self) -> list[JSONRPCRequest]:
        return self.relay.start_early()

    def started(self) -> JSONRPCRequest:
        """The early diff that follows a status."""
        self.practise()
        self.call("status", repo="/r")
        (request,) = self.early()
        assert request.params == {"name": "diff", "arguments": {"repo": "/r"}}
        return request


def text_of(routed: Routed) -> str:
    (message,) = routed.to_client
    assert isinstance(message, JSONRPCResponse)
    text: str = message.result["content"][0]["text"]
    return text


def cancelled(number: Any) -> JSONRPCNotification:
    params = {"requestId": number}
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params)


def failed(number: Any) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=-1, message="failed"))


def test_early_result_answers_the_call_that_comes() -> None:
    rig = Rig()
    request = rig.started()
    rig.now_s += TOOK_S
    assert rig.answer(request.id, "early") == Routed()
    rig.now_s += 3.0
    number, routed = rig.ask("diff", repo="/r")
    assert routed.to_client[0].id == number  # type: ignore[union-attr]
    assert text_of(routed) == "early"
    assert not routed.to_server
    assert (rig.counts.started, rig.counts.used, rig.counts.saved_s) == (1, 1, TOOK_S)


def test_call_on_its_way_is_joined() -> None:
    rig = Rig()
    request = rig.started()
    rig.now_s += 0.2
    number, routed = rig.ask("diff", repo="/r")
    assert routed == Routed()
    rig.now_s += 0.3
    routed = rig.answer(request.id, "early")
    assert routed.to_client[0].id == number  # type: ignore[union-attr]
    assert text_of(routed) == "early"
    assert (rig.counts.late, rig.counts.used, rig.counts.wasted) == (1, 0, 0)
    assert rig.counts.saved_s == pytest.approx(0.2)


@pytest.mark.parametrize("is_error", [True, False])
def test_failed_early_call_is_made_again_for_the_client(is_error: bool) -> None:
    rig = Rig()
    request = rig.started()
    number, _ = rig.ask("diff", repo="/r")
    if is_error:
        routed = rig.relay.from_server(failed(request.id))
    else:
        routed = rig.answer(request.id, isError=True)
    assert not routed.to_client
    (again,) = routed.to_server
    assert isinstance(again, JSONRPCRequest)
    assert again.id == number
    assert text_of(rig.answer(number, "own")) == "own"
    assert (rig.counts.late, rig.counts.wasted) == (0, 1)


def test_error_of_an_early_call_is_not_shown() -> None:
    rig = Rig()
    request = rig.started()
    assert rig.relay.from_server(failed(request.id)) == Routed()
    number, routed = rig.ask("diff", repo="/r")
    assert [message.id for message in routed.to_server] == [number]  # type: ignore[union-attr]


def test_change_drops_early_calls_and_their_results() -> None:
    rig = Rig()
    request = rig.started()
    number, routed = rig.ask("commit")
    assert routed.to_server[0] == cancelled(request.id)
    assert rig.early() == []  # a change is under way
    assert rig.answer(request.id, "stale") == Routed()
    rig.answer(number)
    _, routed = rig.ask("diff", repo="/r")
    assert not routed.to_client
    assert rig.counts.wasted == 1


def test_nothing_is_early_while_a_cancelled_change_may_go_on() -> None:
    rig = Rig()
    rig.practise()
    number, _ = rig.ask("commit")
    rig.relay.from_client(cancelled(number))
    for waited_s, num_early in ((1.0, 0), (60.0, 1)):
        rig.now_s += waited_s
        rig.call("status", repo="/r")
        assert len(rig.early()) == num_early


@pytest.mark.parametrize("has_ended", [True, False])
def test_file_that_changes_in_between_makes_it_void(has_ended: bool) -> None:
    rig = Rig()
    request = rig.started()
    if has_ended:
        rig.answer(request.id, "stale")
    rig.version = b"2"
    number, routed = rig.ask("diff", repo="/r")
    assert [message.id for message in routed.to_server] == [number]  # type: ignore[union-attr]
    assert rig.counts.wasted == 1
    assert not has_ended or rig.calls.counts.outdated == 1
    assert has_ended or rig.answer(request.id, "stale") == Routed()


def test_cancelled_join_tells_neither_side() -> None:
    rig = Rig()
    request = rig.started()
    number, _ = rig.ask("diff", repo="/r")
    assert rig.relay.from_client(cancelled(number)) == Routed()
    assert rig.answer(request.id) == Routed()
    assert rig.counts.wasted == 1


def test_nothing_is_made_early_while_the_client_waits() -> None:
    rig = Rig()
    rig.practise()
    slow, _ = rig.ask("log")
    rig.call("status", repo="/r")
    assert rig.early() == []
    rig.answer(slow)


@pytest.mark.parametrize(
    "hints",
    [
        {},
        {"readOnlyHint": False},
        {**CLOSED, "idempotentHint": False},
        {**CLOSED, "openWorldHint": True},
    ],
)
def test_only_what_may_be_called_twice_is(hints: dict[str, Any]) -> None:
    tools = [dict(tool) for tool in TOOLS]
    tools[1]["annotations"] = hints
    rig = Rig(tools)
    rig.practise()
    rig.call("status", repo="/r")
    assert rig.early() == []


def test_prediction_is_wasted_after_eight_other_calls() -> None:
    rig = Rig()
    request = rig.started()
    rig.answer(request.id)
    for number in range(9):
        rig.call("log", skip=number)
    assert (rig.counts.started, rig.counts.wasted) == (1, 1)


def test_early_call_that_never_ends_is_dropped() -> None:
    rig = Rig()
    request = rig.started()
    sent: list[JSONRPCMessage] = []
    for number in range(9):
        asked, routed = rig.ask("log", skip=number)
        sent += routed.to_server
        rig.answer(asked)
    assert cancelled(request.id) in sent


def test_while_it_does_not_pay_predictions_are_only_compared() -> None:
    rig = Rig()
    rig.practise()
    loss = Prediction("diff", {}), False, 0.0, 0.0, 3.0
    rig.policy.observe(
        PredictionSettled(1, *loss)
    )  # at -0.75 s; a hit counts as the half second it would save
    for _ in range(2):
        rig.call("status", repo="/r")
        assert rig.early() == []
        rig.now_s += 2.0
        rig.call("diff", repo="/r")
        rig.call("commit", repo="/r")
        rig.now_s += 1.0
    assert (rig.counts.predicted, rig.counts.started) == (2, 0)
    rig.call("status", repo="/r")
    assert len(rig.early()) == 1


def test_at_most_four_calls_are_made_for_one_of_the_client() -> None:
    rig = Rig(weight=0.0)
    for number in range(24):
        rig.call("status")
        rig.call("log", skip=number % 8)
    rig.version = b"2"  # none of these results holds
    rig.call("status")
    started = 0
    for _ in range(10):
        for request in rig.early():
            started += 1
            rig.answer(request.id)
    assert started == 4


def test_a_tool_that_asks_the_client_is_left_alone() -> None:
    rig = Rig()
    rig.started()
    asks = JSONRPCRequest(jsonrpc="2.0", id=5, method="elicitation/create", params={})
    routed = rig.relay.from_server(asks)
    assert not routed.to_client
    (refusal,) = routed.to_server
    assert isinstance(refusal, JSONRPCError)
    assert refusal.id == 5
    rig.call("commit")
    rig.now_s += 1.0
    rig.call("status", repo="/r")
    assert rig.early() == []


def test_nothing_is_made_early_a_moment_after_a_change() -> None:
    rig = Rig()
    rig.practise()
    rig.now_s -= 0.9
    rig.call("status", repo="/r")
    assert rig.early() == []
    rig.now_s += 0.6
    assert len(rig.early()) == 1


def test_ids_cannot_clash_with_the_clients() -> None:
    first, second = Rig().started(), Rig().started()
    assert first.id != second.id  # no client can know or guess it
    assert str(first.id).startswith("holdfast-")


def test_protocol_fields_are_sent_with_early_calls() -> None:
    rig = Rig()
    rig.practise()
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 7}
    params = {"name": "status", "arguments": {"repo": "/r"}, "_meta": meta}
    rig.relay.from_client(JSONRPCRequest(jsonrpc="2.0", id="m", method="tools/call", params=params))
    rig.answer("m")
    (request,) = rig.early()
    assert (request.params or {})["_meta"] == {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28"
    }


@pytest.mark.parametrize("has_ended", [True, False])
def test_early_results_need_no_memory(has_ended: bool) -> None:
    rig = Rig(does_remember=False)
    request = rig.started()
    if has_ended:
        rig.answer(request.id, "early")
    _, routed = rig.ask("diff", repo="/r")
    if not has_ended:
        routed = rig.answer(request.id, "early")
    assert text_of(routed) == "early"
    assert (rig.counts.used, rig.counts.late) == (int(has_ended), int(not has_ended))
    number, routed = rig.ask("diff", repo="/r")
    assert [message.id for message in routed.to_server] == [number]  # type: ignore[union-attr]


def test_early_result_is_no_older_than_others() -> None:
    rig = Rig(does_remember=False)
    request = rig.started()
    rig.answer(request.id, "early")
    rig.now_s += 301.0
    assert not rig.ask("diff", repo="/r")[1].to_client
    assert rig.counts.wasted == 1
