"""Reader of Dynamo's `dynamo.request.trace.v1` and its older agent traces.

Each line is one event, bare or in an envelope `{timestamp, event}`. Ends of requests are turns,
ends of tool calls their tools; payloads and starts of tools are ignored.

Known: arrivals, latencies, lengths, cached tokens, block hashes, agents and their parents, reasons
for the ends of answers, tools with their times and results.

Assumed: a request without a session is a session of its own. Without hashes a prompt shares its
cached tokens with its agent's previous prompt, a first prompt with those of the same model. A
request's trigger follows from the end of the previous answer, unless recorded. The parent's last
answer before a sub-agent's first request called the sub-agent.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from holdfast.errors import TraceError
from holdfast.traces.answer import decisive_tool
from holdfast.traces.formats.dynamo_events import (
    HINT,
    Call,
    Event,
    Request,
    TimedTool,
    call_of,
    problem_of,
    timed_tool,
)
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner, PrefixTrail
from holdfast.traces.order import parents_first, reordered
from holdfast.traces.prefix_lengths import PrefixLengths
from holdfast.traces.record import EndedBy, Session, SessionEvent, ToolSpan, Trigger, Turn

__all__ = ["LAYOUTS", "read_dynamo"]

LAYOUTS = (
    frozenset({"schema=dynamo.*", "event_type"}),
    frozenset({"timestamp", "event.schema=dynamo.*", "event.event_type"}),
)
"""A first line with all fields of one of these is of this format."""

_BLOCK_TOKENS = 64


@dataclass(slots=True)
class _Stream:
    """One agent's requests and tools, in the spool.

    Attributes:
        calls: Start (ms), end (ms) and spool offset of each call; in order of time once sorted.
        tools: Spool offsets of tool calls.
    """

    session_id: str
    calls: list[tuple[float, float, int]] = field(default_factory=list)
    tools: array[int] = field(default_factory=lambda: array("q"))
    parent_id: str | None = None

    @property
    def start_ms(self) -> float:
        return self.calls[0][0]

    def last_call_before(self, time_ms: float) -> int | None:
        """Return the index of the last call that ended by then; None for none."""
        ended = (index for index, (_, end_ms, _) in enumerate(self.calls) if end_ms <= time_ms)
        return max(ended, default=None)


class _Rows:
    """The spooled events of a file, by agent.

    Attributes:
        streams: By agent.
        block_tokens: Block size of the recorded hashes; None without hashes.
    """

    def __init__(self, source: str) -> None:
        self._calls = RowSpool(source, Call)
        self._tools = RowSpool(source, TimedTool)
        self.streams: dict[str, _Stream] = {}
        self.block_tokens: int | None = None

    def add_call(self, call: Call) -> None:
        name = call.context.agent_id or call.request.request_id
        stored = (call.start_ms, call.end_ms, self._calls.add(call))
        self.streams.setdefault(name, _Stream(name)).calls.append(stored)
        if call.request.replay is not None:
            self.block_tokens = call.request.replay.trace_block_size

    def add_tool(self, name: str, tool: TimedTool) -> None:
        self.streams.setdefault(name, _Stream(name)).tools.append(self._tools.add(tool))

    def first_call_of(self, stream: _Stream) -> Call:
        return self._calls.read([stream.calls[0][2]])[0]

    def calls_of(self, stream: _Stream) -> list[Call]:
        return self._calls.read(offset for _, _, offset in stream.calls)

    def tools_of(self, stream: _Stream) -> list[TimedTool]:
        return self._tools.read(stream.tools)


def read_dynamo(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0).
        rng: Chooses the first arrival as `reordered` does; None keeps the order of time.

    Raises:
        TraceError: A line is not such an event, lacks a field of a turn or changes the block size,
            or no request ends.
    """
    rows = _Rows(file.source)
    for line, row in file.decode(Event, hint=HINT):
        event = row.event or row
        problem = problem_of(file, line, event, rows.block_tokens)
        if problem is not None:
            file.refuse(problem)
        elif event.event_type == "request_end":
            rows.add_call(call_of(event))
        elif event.event_type in ("tool_end", "tool_error"):
            rows.add_tool(event.agent_id or "", timed_tool(event))
    started = [stream for stream in rows.streams.values() if stream.calls]
    if not started:
        raise TraceError("holds no end of a request", source=file.source, hint=HINT)
    prefixes = PrefixLengths(interner, block_tokens=_BLOCK_TOKENS)
    for stream in started:
        stream.calls.sort(key=itemgetter(0))
        first = rows.first_call_of(stream)
        stream.parent_id = first.context.parent_id
        prefixes.note_first(first.request.model, first.prompt_tokens)

    def block_ids(calls: list[Call]) -> Iterator[tuple[int, ...]]:
        if rows.block_tokens is None:
            return _from_lengths(calls, prefixes)
        return _from_hashes(calls, rows.block_tokens, interner.trail(scope))

    started.sort(key=lambda stream: stream.start_ms)
    ordered = parents_first(started, lambda one: one.session_id, lambda one: one.parent_id)
    sessions = _sessions(file.source, ordered, rows, block_ids)
    return Reading(len(started), 0, reordered(sessions, rng))


def _sessions(
    source: str,
    streams: list[_Stream],
    rows: _Rows,
    block_ids: Callable[[list[Call]], Iterator[tuple[int, ...]]],
) -> Iterator[Session]:
    first_ms = min(stream.start_ms for stream in streams)
    known: dict[str, _Stream] = {}
    for stream in streams:
        calls = rows.calls_of(stream)
        parent = known.get(stream.parent_id or "")
        yield Session(
            stream.session_id,
            rows.block_tokens or _BLOCK_TOKENS,
            tuple(_turns(calls, _tools_by_call(stream, rows.tools_of(stream)), block_ids(calls))),
            source,
            start_s=(stream.start_ms - first_ms) / 1000 if parent is None else None,
            parent_id=None if parent is None else parent.session_id,
            parent_turn=None if parent is None else parent.last_call_before(stream.start_ms),
            events=tuple(_session_events(calls)),
        )
        known[stream.session_id] = stream


def _from_hashes(
    calls: list[Call], block_tokens: int, trail: PrefixTrail
) -> Iterator[tuple[int, ...]]:
    for call in calls:
        replay = call.request.replay
        num_full = 0 if replay is None else replay.input_length // block_tokens
        yield trail.extend([] if replay is None else replay.input_sequence_hashes[:num_full])


def _from_lengths(calls: list[Call], prefixes: PrefixLengths) -> Iterator[tuple[int, ...]]:
    lengths = ((call.prompt_tokens, call.request.cached_tokens or 0) for call in calls)
    return prefixes.of(calls[0].request.model, lengths)


def _tools_by_call(stream: _Stream, tools: list[TimedTool]) -> dict[int, list[TimedTool]]:
    by_call: dict[int, list[TimedTool]] = {}
    for tool in sorted(tools, key=lambda timed: (timed.start_ms, timed.end_ms)):
        index = stream.last_call_before(tool.start_ms)
        if index is not None:
            by_call.setdefault(index, []).append(tool)
    return by_call


def _turns(
    calls: list[Call], tools: dict[int, list[TimedTool]], prompts: Iterator[tuple[int, ...]]
) -> Iterator[Turn]:
    before: Call | None = None
    ended_by: EndedBy = "unknown"
    for index, (call, block_ids) in enumerate(zip(calls, prompts, strict=True)):
        spans = tuple(_span(timed, call.end_ms) for timed in tools.get(index, []))
        trigger = _trigger(call, ended_by)
        ended_by = _ended_by(call.request)
        yield Turn(
            gap_s=0.0 if before is None else max(0.0, call.start_ms - before.end_ms) / 1000,
            prompt_tokens=call.prompt_tokens,
            output_tokens=call.request.output_tokens or 0,
            block_ids=block_ids,
            trigger=trigger,
            ended_by=ended_by,
            tool_name=_tool_name(call.request, spans),
            model=call.request.model or "",
            latency_s=(call.end_ms - call.start_ms) / 1000,
            cached_tokens=call.request.cached_tokens,
            tools=spans,
        )
        before = call


def _trigger(call: Call, ended_by: EndedBy) -> Trigger:
    if call.context.input_trigger is not None:
        return "tool_result" if call.context.input_trigger == "tool_result" else "user"
    return "tool_result" if ended_by == "tool" else "user"


def _ended_by(request: Request) -> EndedBy:
    finish = request.finish_reason_metadata
    if finish is None:
        return "unknown"
    if finish.tool_calls or finish.finish_reason == "tool_calls":
        return "tool"
    return "human" if finish.finish_reason == "stop" else "unknown"


def _tool_name(request: Request, spans: tuple[ToolSpan, ...]) -> str | None:
    finish = request.finish_reason_metadata
    called = (
        [ToolSpan(call.name) for call in (finish.tool_calls or ()) if call.name] if finish else []
    )
    return decisive_tool(called or spans)[0]


def _span(timed: TimedTool, answer_ms: float) -> ToolSpan:
    tool = timed.tool
    return ToolSpan(
        tool.tool_class,
        start_s=(timed.start_ms - answer_ms) / 1000,
        end_s=(timed.end_ms - answer_ms) / 1000,
        is_error=None if tool.status is None else tool.status in ("error", "failed", "timeout"),
    )


def _session_events(calls: list[Call]) -> Iterator[SessionEvent]:
    for index, call in enumerate(calls):
        if call.context.compaction is not None:
            yield SessionEvent("compaction", index)
        if call.context.session_final:
            yield SessionEvent("close", index + 1)
