"""With early calls, too, every answer is one that the server could give while the client waited."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp_types.jsonrpc import ErrorData

from holdfast.mcp_proxy.call_policies import CallPolicies, PolicyActions
from holdfast.mcp_proxy.early_calls import EarlyCalls, EarlyCounts
from holdfast.mcp_proxy.file_stamp import FileStamp
from holdfast.mcp_proxy.relay import Relay
from holdfast.mcp_proxy.session_calls import CallCounts, SessionCalls
from holdfast.policies.calls import (
    AskedCall,
    CallAnswered,
    CallAsked,
    CallEvent,
    CallPolicy,
    KnownResult,
    Prediction,
)
from holdfast.policies.registry import CALL_POLICIES
from holdfast.policies.spec import PolicySpec

NUM_INTERLEAVINGS = 10_000
FEWER = 1_000
NUM_STEPS = 24
LONG_AGO_S = 1_000.0
TOOLS = [
    {"name": "read", "annotations": {"readOnlyHint": True, "openWorldHint": False}},
    {"name": "write"},
]
ACTIONS = ("read", "read", "read", "write", "effect", "end", "end", "fail", "file", "cancel")


@dataclass
class AtServer:
    """A call that has reached the server; it takes effect at any time until it ends."""

    tool: str
    key: str
    seen: tuple[int, int] | None = None


@dataclass
class AtClient:
    """A call that the client waits for, and what the world was in the meantime."""

    tool: str
    key: str
    possible: set[tuple[int, int]] = field(default_factory=set)


class World:
    """A client, a relay, and a server with one value a key; files beside it that anyone changes."""

    def __init__(
        self, seed: int, policies: CallPolicies, counts: CallCounts, early_counts: EarlyCounts
    ) -> None:
        self.random = random.Random(seed)
        self.now_s = 5_000.0
        self.values = dict.fromkeys("ab", 0)
        self.files = dict.fromkeys("ab", (0, LONG_AGO_S))
        self.num_written = self.num_asked = 0
        clock = lambda: self.now_s  # noqa: E731
        calls = SessionCalls(seed, policies, self.stamp, clock, clock, counts=counts)
        self.relay = Relay(calls, EarlyCalls(calls, policies, clock, early_counts))
        self.close = calls.close
        self.client: dict[RequestId, AtClient] = {}
        self.server: dict[RequestId, AtServer] = {}
        self.cancelled: set[RequestId] = set()
        self.relay.from_client(JSONRPCRequest(jsonrpc="2.0", id="l", method="tools/list"))
        self.from_server(JSONRPCResponse(jsonrpc="2.0", id="l", result={"tools": TOOLS}), set())

    def stamp(self, arguments: Any) -> FileStamp:
        version, changed_s = self.files[arguments["key"]]
        return FileStamp(str(version).encode(), changed_s, 1)

    def step(self) -> None:
        action = self.random.choice(ACTIONS)
        self.now_s += self.random.choice((0.0, 0.5, 2.0, 40.0))
        if action in ("read", "write"):
            self.ask(action, self.random.choice("ab"))
        elif action == "file":
            key = self.random.choice("ab")
            self.num_written += 1
            self.files[key] = (self.num_written, self.now_s)
            self.changed()
        elif action == "cancel" and self.client:
            self.cancel(self.random.choice(list(self.client)))
        elif action in ("effect", "end", "fail") and self.server:
            getattr(self, action)(self.random.choice(list(self.server)))

    def changed(self) -> None:
        for call in self.client.values():
            call.possible.add((self.values[call.key], self.files[call.key][0]))

    def ask(self, tool: str, key: str) -> None:
        self.num_asked += 1
        params = {"name": tool, "arguments": {"key": key}}
        self.client[self.num_asked] = AtClient(tool, key)
        self.changed()
        self.deliver(
            self.relay.from_client(
                JSONRPCRequest(jsonrpc="2.0", id=self.num_asked, method="tools/call", params=params)
            )
        )

    def cancel(self, number: RequestId) -> None:
        """A cancelled change still takes effect, soon or never."""
        del self.client[number]
        self.cancelled.add(number)
        params = {"requestId": number}
        self.deliver(
            self.relay.from_client(
                JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params)
            )
        )

    def effect(self, number: RequestId) -> None:
        call = self.server[number]
        if call.seen is not None:
            return
        if call.tool == "write":
            self.num_written += 1
            self.values[call.key] = self.num_written
            self.changed()
        call.seen = self.values[call.key], self.files[call.key][0]

    def end(self, number: RequestId) -> None:
        self.effect(number)
        result = {"content": [{"type": "text", "text": str(self.server.pop(number).seen)}]}
        self.from_server(JSONRPCResponse(jsonrpc="2.0", id=number, result=result), {number})

    def fail(self, number: RequestId) -> None:
        del self.server[number]
        error = ErrorData(code=-1, message="failed")
        self.from_server(JSONRPCError(jsonrpc="2.0", id=number, error=error), {number})

    def from_server(self, message: JSONRPCMessage, failing: set[RequestId]) -> None:
        self.deliver(self.relay.from_server(message), failing)

    def deliver(self, routed: Any, failing: set[RequestId] | None = None) -> None:
        for message in routed.to_client:
            self.reach_client(message, failing or set())
        for message in routed.to_server:
            self.reach_server(message)
        if routed.is_answer:
            is_changing = any(call.tool == "write" for call in self.server.values())
            early = self.relay.start_early()
            assert not (early and is_changing)
            for message in early:
                assert message.id not in self.client
                self.reach_server(message)

    def reach_client(self, message: JSONRPCMessage, failing: set[RequestId]) -> None:
        if isinstance(message, (JSONRPCError, JSONRPCResponse)) and message.id in self.cancelled:
            return  # the client drops it
        if isinstance(message, JSONRPCError):
            assert message.id in failing  # its own
            del self.client[message.id]
        elif isinstance(message, JSONRPCResponse) and message.id != "l":
            call = self.client.pop(message.id)
            text = message.result["content"][0]["text"]
            assert call.tool == "write" or text in map(str, call.possible)

    def reach_server(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest):
            params = message.params or {}
            self.server[message.id] = AtServer(params["name"], params["arguments"]["key"])
        elif isinstance(message, JSONRPCNotification):
            number = (message.params or {})["requestId"]
            call = self.server.get(number)
            if call is not None and self.random.random() < 0.5:
                self.effect(number)
            if call is not None and (call.tool == "write" or self.random.random() < 0.5):
                del self.server[number]  # or it is answered all the same


class Hoarder(CallPolicy):
    """Forgets nothing, takes any result for the answer, and predicts every call it has seen."""

    spec = PolicySpec("hoarder", "Keeps all.", "this test")

    def __init__(self) -> None:
        super().__init__()
        self._known: list[KnownResult] = []
        self._asked: dict[str, AskedCall] = {}

    def observe(self, event: CallEvent) -> None:
        match event:
            case CallAsked(call):
                self._asked[call.key] = call
            case CallAnswered(known=KnownResult() as known):
                self._known = [*self._known[-3:], known]

    def recall(self, call: AskedCall) -> KnownResult | None:
        return self._known[-1] if self._known else None

    def predict(self, session: int) -> Sequence[Prediction]:
        return [Prediction(each.tool, each.arguments) for each in self._asked.values()]


def play(
    policies: Sequence[CallPolicy], num_interleavings: int
) -> tuple[CallCounts, EarlyCounts, PolicyActions]:
    """Sessions one after the other; each of their answers is checked."""
    counts, early_counts, actions = CallCounts(), EarlyCounts(), PolicyActions()
    asked = CallPolicies(policies, actions)
    for seed in range(num_interleavings):
        world = World(seed, asked, counts, early_counts)
        for _ in range(NUM_STEPS):
            world.step()
        for number in list(world.server):
            world.end(number)
        assert not world.client  # each call was answered
        world.close()
    return counts, early_counts, actions


def all_built_in() -> list[CallPolicy]:
    eager = {"speculation": {"waste_weight": 0.0}}
    return [CALL_POLICIES.build(name, eager.get(name, {})) for name in CALL_POLICIES.built_in]


def test_no_answer_is_stale_with_early_calls() -> None:
    _, early, _ = play(all_built_in(), NUM_INTERLEAVINGS)
    assert min(early.used, early.late, early.wasted) > NUM_INTERLEAVINGS / 100


@pytest.mark.parametrize("name", CALL_POLICIES.names())
def test_no_answer_is_stale_with_one_policy_alone(name: str) -> None:
    policies = [each for each in all_built_in() if each.spec.name == name]
    _, _, actions = play(policies or [CALL_POLICIES.build(name, {})], FEWER)
    assert not actions[name, "failed"]


def test_no_policy_can_make_an_answer_stale() -> None:
    counts, early, actions = play([Hoarder()], FEWER)
    assert min(counts.answered, early.used, early.late, early.wasted) > FEWER / 100
    assert not actions["hoarder", "failed"]
