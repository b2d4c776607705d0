"""Answers of each API that call tools, and a policy that denies some of the calls.

Forbidden names and arguments are of the letters Q and Z, which nothing else in an answer has.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter

from holdfast.core.identity import Identity
from holdfast.core.request_body import RequestBody
from holdfast.gateway.answer_filter import AnswerFilter, BodyFilter
from holdfast.gateway.answer_filter_chat import ChatStream, edit_chat
from holdfast.gateway.answer_filter_messages import MessagesStream, edit_message
from holdfast.gateway.answer_filter_responses import ResponsesStream, edit_response
from holdfast.gateway.call_judge import CallJudge
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.request_policies import RequestPolicies
from holdfast.policies.requests import Request, RequestEvent, RequestPolicy, ToolCall, Verdict
from holdfast.policies.spec import PolicySpec

NO = "[no]"
ASK = "[may I?]"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
STREAMS: dict[str, Callable[[CallJudge], AnswerFilter]] = {
    "chat": ChatStream,
    "responses": ResponsesStream,
    "messages": MessagesStream,
}
EDITS: dict[str, Callable[[Any, CallJudge], bool]] = {
    "chat": edit_chat,
    "responses": edit_response,
    "messages": edit_message,
}


class Judging(RequestPolicy):
    """Denies calls with a Q in their name or arguments, asks about those with a W."""

    spec = PolicySpec("judging", "Judges calls.", "these tests")
    judges_calls = True
    is_mandatory = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[ToolCall] = []
        self.events: list[RequestEvent] = []

    def judge(self, request: Request, call: ToolCall) -> Verdict | None:
        self.calls.append(call)
        text = call.name + call.arguments
        if "Q" in text or "Z" in text:
            return Verdict("deny", "q", NO)
        return Verdict("ask", "w", ASK) if "W" in text else None

    def observe(self, event: RequestEvent) -> None:
        self.events.append(event)


class Said(NamedTuple):
    """A part of an answer: a text, or a call."""

    name: str
    text: str

    @property
    def is_call(self) -> bool:
        return bool(self.name)


def filter_of(api: str, *, streamed: bool = True, policy: Judging | None = None) -> AnswerFilter:
    policies = RequestPolicies([policy or Judging()], GatewayMetrics())
    request = Request("/", RequestBody(b"{}", {}), Identity(), 0.0)
    unjudged = Counter("unjudged", "-", ["reason"], registry=CollectorRegistry())
    judge = CallJudge(policies, request, unjudged)
    return STREAMS[api](judge) if streamed else BodyFilter(judge, EDITS[api])


def passed(filtered: AnswerFilter, chunks: Sequence[bytes]) -> bytes:
    return b"".join(map(filtered.feed, chunks)) + filtered.end()


def encoded(events: Sequence[dict[str, Any]], end: bytes = b"\n") -> bytes:
    """The events as a server sends them, with lines that end so."""
    found = b""
    for event in events:
        if "type" in event:
            found += b"event: " + event["type"].encode() + end
        found += b"data: " + json.dumps(event, ensure_ascii=False).encode() + end + end
    return found


def pieces(text: str, number: int) -> list[str]:
    """A text in so many parts, some of them perhaps empty."""
    step = max(1, -(-len(text) // number))
    return [text[at : at + step] for at in range(0, len(text), step)] or [""]


# Streams, as lists of the events of each part, in their order.


def chat_events(parts: Sequence[Said], number: int = 3, index: int = 0) -> list[dict[str, Any]]:
    """The chunks of a choice."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    position = -1
    for part in parts:
        if not part.is_call:
            deltas += [{"content": each} for each in pieces(part.text, number)]
            continue
        position += 1
        function = {"name": part.name, "arguments": ""}
        call = {"index": position, "id": f"call_{position}", "type": "function"}
        deltas.append({"tool_calls": [call | {"function": function}]})
        deltas += [
            {"tool_calls": [{"index": position, "function": {"arguments": each}}]}
            for each in pieces(part.text, number)
        ]
    finish = "tool_calls" if position >= 0 else "stop"
    return [_chunk(delta, index) for delta in deltas] + [_chunk({}, index, finish)]


def _chunk(delta: dict[str, Any], index: int, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return head | {"choices": [choice]}


def usage_chunk() -> dict[str, Any]:
    return _chunk({}, 0) | {"choices": [], "usage": USAGE}


def message_events(parts: Sequence[Said], number: int = 3) -> list[dict[str, Any]]:
    message = message_of([]) | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, part in enumerate(parts):
        block: dict[str, Any] = {"type": "text", "text": ""}
        kind, key = "text_delta", "text"
        if part.is_call:
            block = {"type": "tool_use", "id": f"t{index}", "name": part.name, "input": {}}
            kind, key = "input_json_delta", "partial_json"
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [
            {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: each}}
            for each in pieces(part.text, number)
        ]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message_of(parts)["stop_reason"], "stop_sequence": None}
    usage = {"input_tokens": 7, "output_tokens": 5}
    events.append({"type": "message_delta", "delta": delta, "usage": usage})
    return [*events, {"type": "message_stop"}]


def response_events(parts: Sequence[Said], number: int = 3) -> list[dict[str, Any]]:
    done = response_of(parts)
    begun = done | {"status": "in_progress", "output": []}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, (part, item) in enumerate(zip(parts, done["output"], strict=True)):
        events += _item_events(part, item, index, number)
    events.append({"type": "response.completed", "response": done})
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def _item_events(
    part: Said, item: dict[str, Any], index: int, number: int
) -> Iterator[dict[str, Any]]:
    place = {"output_index": index}
    within = {"item_id": item["id"], **place}
    if part.is_call:
        empty = item | {"arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", **place, "item": empty}
        kind = "response.function_call_arguments"
        for each in pieces(part.text, number):
            yield {"type": f"{kind}.delta", **within, "delta": each}
        yield {"type": f"{kind}.done", **within, "arguments": part.text, "name": part.name}
    else:
        within["content_index"] = 0
        (content,) = item["content"]
        empty = item | {"content": [], "status": "in_progress"}
        yield {"type": "response.output_item.added", **place, "item": empty}
        yield {"type": "response.content_part.added", **within, "part": content | {"text": ""}}
        for each in pieces(part.text, number):
            yield {"type": "response.output_text.delta", **within, "delta": each, "logprobs": []}
        yield {"type": "response.output_text.done", **within, "text": part.text, "logprobs": []}
        yield {"type": "response.content_part.done", **within, "part": content}
    yield {"type": "response.output_item.done", **place, "item": item}


# Whole answers.


def chat_of(parts: Sequence[Said], index: int = 0) -> dict[str, Any]:
    calls = [part for part in parts if part.is_call]
    message: dict[str, Any] = {"role": "assistant"}
    message["content"] = "".join(part.text for part in parts if not part.is_call) or None
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function"}
            | {"function": {"name": call.name, "arguments": call.text}}
            for n, call in enumerate(calls)
        ]
    finish = "tool_calls" if calls else "stop"
    choice = {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
    return head | {"choices": [choice]}


def message_of(parts: Sequence[Said]) -> dict[str, Any]:
    content = [
        {"type": "tool_use", "id": f"t{n}", "name": part.name, "input": json.loads(part.text)}
        if part.is_call
        else {"type": "text", "text": part.text}
        for n, part in enumerate(parts)
    ]
    stop = "tool_use" if any(part.is_call for part in parts) else "end_turn"
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 5},
    }


def response_of(parts: Sequence[Said]) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    for n, part in enumerate(parts):
        if part.is_call:
            call = {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}"}
            output.append(call | {"name": part.name, "arguments": part.text, "status": "completed"})
            continue
        text = {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"m_{n}", "role": "assistant", "status": "completed"}
        output.append(message | {"content": [text]})
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": output,
        "usage": {
            "input_tokens": 7,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
    }


def streamed(api: str, parts: Sequence[Said], number: int = 3, end: bytes = b"\n") -> bytes:
    """A whole stream of an API."""
    if api == "messages":
        return encoded(message_events(parts, number), end)
    if api == "responses":
        return encoded(response_events(parts, number), end)
    chunks = [*chat_events(parts, number), usage_chunk()]
    return encoded(chunks, end) + b"data: [DONE]" + end + end


def whole(api: str, parts: Sequence[Said]) -> bytes:
    """A whole body of an API."""
    made = {"chat": chat_of, "messages": message_of, "responses": response_of}[api](parts)
    return json.dumps(made, indent=1).encode()
