"""Events of Dynamo's request traces, and the calls and tools that they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, Milliseconds, PromptTokens, Tokens
from holdfast.traces.formats.trace_file import TraceFile

__all__ = ["HINT", "Call", "Event", "Request", "TimedTool", "call_of", "problem_of", "timed_tool"]

HINT: Final = (
    "expected one event a line: {timestamp, event: {schema, event_type, event_time_unix_ms, "
    "agent_context, request: {request_id, …} or tool: {…}}}"
)
"""The expected content of a line."""

_SCHEMAS = ("dynamo.request.trace.v1", "dynamo.agent.trace.v1")


class _Context(msgspec.Struct):
    session_id: str | None = None
    parent_session_id: str | None = None
    trajectory_id: str | None = None
    parent_trajectory_id: str | None = None
    program_id: str | None = None
    parent_program_id: str | None = None
    session_final: bool | None = None
    compaction: Any = None
    input_trigger: str | None = None

    @property
    def agent_id(self) -> str | None:
        """The agent's id, in whichever field the schema's revision has."""
        return self.trajectory_id or self.program_id or self.session_id

    @property
    def parent_id(self) -> str | None:
        return self.parent_trajectory_id or self.parent_program_id or self.parent_session_id


class _CalledTool(msgspec.Struct):
    name: str | None = None


class _Finish(msgspec.Struct):
    finish_reason: str | None = None
    tool_calls: list[_CalledTool] | None = None


class _Replay(msgspec.Struct):
    trace_block_size: PromptTokens
    input_length: PromptTokens
    input_sequence_hashes: list[Count]


class Request(msgspec.Struct):
    """One request, from the event of its end."""

    request_id: str
    model: str | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cached_tokens: Tokens | None = None
    request_received_ms: Milliseconds | None = None
    total_time_ms: Milliseconds | None = None
    finish_reason_metadata: _Finish | None = None
    replay: _Replay | None = None


class _Tool(msgspec.Struct):
    tool_class: str
    status: str | None = None
    started_at_unix_ms: Milliseconds | None = None
    ended_at_unix_ms: Milliseconds | None = None
    duration_ms: Milliseconds | None = None


class Event(msgspec.Struct):
    """One line, or the event in its envelope."""

    schema: str | None = None
    event_type: str | None = None
    event_time_unix_ms: Milliseconds | None = None
    agent_context: _Context | None = None
    request: Request | None = None
    tool: _Tool | None = None
    event: Event | None = None

    @property
    def agent_id(self) -> str | None:
        """The agent's id; None if not recorded."""
        return None if self.agent_context is None else self.agent_context.agent_id


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its times in unix milliseconds."""

    request: Request
    context: _Context
    start_ms: float
    end_ms: float
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class TimedTool:
    """One tool call with its times in unix milliseconds."""

    start_ms: float
    end_ms: float
    tool: _Tool


def problem_of(
    file: TraceFile, line: int, event: Event, block_tokens: int | None
) -> TraceError | None:
    """Return the error of an unusable event, None for a usable one; pure.

    Args:
        file: The event's file.
        line: Its line.
        event: Without its envelope.
        block_tokens: Block size of earlier events; None without hashes.
    """
    if event.schema not in _SCHEMAS:
        return file.error(
            f"schema {event.schema!r}; expected {' or '.join(_SCHEMAS)}",
            line=line,
            field="schema",
            hint=HINT,
        )
    if event.event_type in ("tool_end", "tool_error"):
        missing = "tool" if event.tool is None else ""
    elif event.event_type == "request_end":
        missing = _missing(event)
    else:
        return None
    if missing:
        return file.error("is missing", line=line, field=missing, hint=HINT)
    replay = None if event.request is None else event.request.replay
    if replay is None:
        return None
    size = replay.trace_block_size
    num_blocks = -(-replay.input_length // size)
    if size != (block_tokens or size) or len(replay.input_sequence_hashes) > num_blocks:
        return file.error(
            f"{len(replay.input_sequence_hashes)} blocks of {size} tokens for "
            f"{replay.input_length}; expected at most {num_blocks}, of {block_tokens or size}",
            line=line,
            field="request.replay",
        )
    return None


def _missing(event: Event) -> str:
    """Return the first missing field of a turn; "" for none."""
    request = event.request
    if request is None:
        return "request"
    if request.replay is None and not request.input_tokens:
        return "request.input_tokens"
    if request.request_received_ms is None:
        return "request.request_received_ms"
    if request.total_time_ms is None and event.event_time_unix_ms is None:
        return "event_time_unix_ms"
    return ""


def call_of(event: Event) -> Call:
    """Return the call of an end of a request without a problem; pure."""
    request = event.request or Request("")
    start_ms = request.request_received_ms or 0.0
    if request.total_time_ms is None:
        end_ms = max(start_ms, event.event_time_unix_ms or 0.0)
    else:
        end_ms = start_ms + request.total_time_ms
    prompt_tokens = request.input_tokens or 1
    if request.replay is not None:
        prompt_tokens = request.replay.input_length
    return Call(request, event.agent_context or _Context(), start_ms, end_ms, prompt_tokens)


def timed_tool(event: Event) -> TimedTool:
    """Return the tool call of an end of a tool without a problem; pure."""
    tool = event.tool or _Tool("")
    end_ms = tool.ended_at_unix_ms or event.event_time_unix_ms or 0.0
    start_ms = tool.started_at_unix_ms
    if start_ms is None:
        start_ms = end_ms - (tool.duration_ms or 0.0)
    return TimedTool(start_ms, max(start_ms, end_ms), tool)
