"""Reader of Mooncake requests with sessions, such as Dynamo's agentic Mooncake.

Reads three kinds of rows. Mooncake's own with a `session_id`: turns in the order of lines, with a
`delay`. Version 1 of agentic Mooncake: requests that list the requests they `wait_for`. Version 2:
a first line with the schema and the block size, and typed `dependencies`.

Rows hold whole prompts or, as aiperf's do, only the tokens that each adds to the previous prompt
and its answer. `context_mode` names which. Without it, and without request ids, rows are additions
if no row of the file begins with the first hash of its session's previous row. Rows without hashes
share only what additions share.

Known: lengths, block hashes, dependencies with their delays, tools with their times. A session's
first request that waits for another session's request makes its session a sub-agent. A later
request that waits for a sub-agent's last request joins it, and its gap starts at the sub-agent's
end.

Assumed: if the file has no block size, it is the power of two that fits all block counts, 512
(Mooncake's) first. Tool times count from 0 if a request has no time.
Not known: latencies, and how answers ended; an answer is taken to end with the tools whose results
the next request carries.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.answer import decisive_tool
from holdfast.traces.formats.layout import missing_fields
from holdfast.traces.formats.prompt_deltas import PromptDeltas
from holdfast.traces.formats.quantities import (
    MAX_TOKENS,
    Count,
    Milliseconds,
    PromptTokens,
    Tokens,
)
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import second_request
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import parents_first, reordered
from holdfast.traces.record import Session, ToolSpan, Turn

__all__ = ["LAYOUTS", "read_agentic_mooncake"]

_HEADER = frozenset({"schema", "version", "block_size", "hash_id_scope"})
LAYOUTS = (
    frozenset({"session_id", "input_length", "output_length"}),
    frozenset({"session_id", "input_length", "output_length", "hash_ids"}),
    frozenset({"request_id", "input_length", "output_length", "hash_ids"}),
    _HEADER,
)
"""A first line with all fields of one of these is of this format."""

_SCHEMA = "dynamo.agentic_mooncake"
_VERSION = 2
_BLOCK_TOKENS = 512
_BLOCK_SIZES = (_BLOCK_TOKENS, *(1 << power for power in range(15) if power != 9))
_WITH_ANSWERS = "deltas_without_responses"
_WITHOUT_ANSWERS = "deltas_with_responses"
_HINT = (
    "expected one request a line: {request_id, session_id, input_length, output_length, hash_ids, "
    "wait_for, delay, tool_wait_ms, …}"
)


class _Header(msgspec.Struct):
    schema: str
    version: int
    block_size: PromptTokens
    hash_id_scope: Literal["local", "global"] = "local"


class _ToolEvent(msgspec.Struct):
    tool_class: str
    status: str | None = None
    started_at_unix_ms: Milliseconds | None = None
    ended_at_unix_ms: Milliseconds | None = None
    duration_ms: Milliseconds | None = None


class _Dependency(msgspec.Struct):
    request_id: str
    delay_ms: Milliseconds = 0.0


class _Row(msgspec.Struct):
    input_length: PromptTokens
    output_length: Tokens
    hash_ids: list[Count] | None = None
    request_id: str | None = None
    session_id: str | None = None
    play_id: str | None = None
    model: str | None = None
    timestamp: Milliseconds | None = None
    not_before_ms: Milliseconds | None = None
    delay: Milliseconds | None = None
    tool_wait_ms: Milliseconds = 0.0
    wait_for: list[str] = []
    dependencies: list[_Dependency] = []
    tool_events: list[_ToolEvent] = []
    context_mode: str | None = None

    @property
    def time_ms(self) -> float | None:
        return self.timestamp if self.timestamp is not None else self.not_before_ms

    @property
    def hashes(self) -> list[int]:
        return self.hash_ids or []

    def waits_for(self) -> list[str]:
        return [*self.wait_for, *(dependency.request_id for dependency in self.dependencies)]

    def wait_ms(self) -> float | None:
        """Time from the end of its dependencies to this request; None if not recorded."""
        if self.dependencies:
            return max(dependency.delay_ms for dependency in self.dependencies)
        if self.wait_for or self.delay is not None:
            return (self.delay or 0.0) + self.tool_wait_ms
        return None


@dataclass(slots=True)
class _Stream:
    """One session: the offsets of its spooled rows, and its links to other sessions.

    Attributes:
        waits: By row index, the requests of other sessions that the row waits for.
        first_hash: The first hash of the latest row's prompt.
        context_mode: The recorded `context_mode`; None if not recorded.
    """

    session_id: str
    rows: array[int] = field(default_factory=lambda: array("q"))
    waits: dict[int, list[str]] = field(default_factory=dict)
    parent_id: str | None = None
    parent_turn: int | None = None
    join_turn: int | None = None
    first_hash: int | None = None
    context_mode: str | None = None


@dataclass(slots=True)
class _Graph:
    """The sessions of a file and their links, as its first pass collects them.

    Attributes:
        positions: By request id, its session and its row index there.
        block_sizes: Sizes that fit all block counts so far, the likeliest first.
        num_estimated_gaps: Gaps that are not recorded.
        has_ids: Whether a row has a request id. Dynamo's rows do, and hold whole prompts.
        num_later: Rows that are not the first of their session.
        num_continued: Later rows that begin with the first hash of the previous row.
    """

    spool: RowSpool[_Row]
    streams: dict[str, _Stream] = field(default_factory=dict)
    positions: dict[str, tuple[_Stream, int]] = field(default_factory=dict)
    block_sizes: tuple[int, ...] = _BLOCK_SIZES
    num_estimated_gaps: int = 0
    has_ids: bool = False
    num_later: int = 0
    num_continued: int = 0

    def context_mode(self, stream: _Stream) -> str:
        """Return the mode of a session's rows; "" for whole prompts."""
        if stream.context_mode is not None:
            return stream.context_mode
        adds = self.num_later > 0 and self.num_continued == 0 and not self.has_ids
        return _WITH_ANSWERS if adds else ""


def read_agentic_mooncake(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0).
        rng: Shuffles as `reordered` does; None keeps the order of first requests.

    Raises:
        TraceError: A line is not such a request or repeats an id, no block size fits, or there is
            no request.
    """
    header = _header(file)
    graph = _graph(file, has_header=header is not None)
    _link(graph)
    block_tokens = _block_tokens(file, graph) if header is None else header.block_size
    sessions = _sessions(file.source, graph, block_tokens, interner, scope)
    return Reading(len(graph.streams), graph.num_estimated_gaps, reordered(sessions, rng))


def _header(file: TraceFile) -> _Header | None:
    if missing_fields(next(file.fields(), {}), _HEADER):
        return None
    # The rows cannot be read without the header, so it is never skipped.
    line, header = next(replace(file, on_skipped=None).decode(_Header, hint=_HINT))
    if (header.schema, header.version) != (_SCHEMA, _VERSION):
        raise file.error(
            f"schema {header.schema!r} version {header.version}; expected {_SCHEMA!r} version "
            f"{_VERSION}",
            line=line,
            field="schema",
        )
    return header


def _graph(file: TraceFile, *, has_header: bool) -> _Graph:
    graph = _Graph(RowSpool(file.source, _Row))
    rows = file.decode(_Row, hint=_HINT, num_header_lines=int(has_header))
    for line, row in rows:
        if row.request_id is not None and row.request_id in graph.positions:
            file.refuse(second_request(file, line, "request_id", row.request_id))
            continue
        name = row.session_id or row.request_id or f"{file.label}-{line}"
        if row.play_id is not None:
            name = f"{row.play_id}/{name}"
        _add_row(graph, graph.streams.setdefault(name, _Stream(name)), row)
    if not graph.streams:
        raise TraceError("holds no request", source=file.source, hint=_HINT)
    return graph


def _add_row(graph: _Graph, stream: _Stream, row: _Row) -> None:
    index = len(stream.rows)
    others = [
        name for name in row.waits_for() if graph.positions.get(name, (None, 0))[0] is not stream
    ]
    if others:
        stream.waits[index] = others
    if row.request_id is not None:
        graph.has_ids = True
        graph.positions[row.request_id] = (stream, index)
    _compare(graph, stream, row, is_later=index > 0)
    graph.num_estimated_gaps += index > 0 and row.wait_ms() is None
    if row.hash_ids is not None:
        num_blocks = len(row.hash_ids)
        graph.block_sizes = tuple(
            size
            for size in graph.block_sizes
            if row.input_length // size <= num_blocks <= -(-row.input_length // size)
        )
    stream.rows.append(graph.spool.add(row))


def _compare(graph: _Graph, stream: _Stream, row: _Row, *, is_later: bool) -> None:
    """Count the evidence that rows hold whole prompts or additions."""
    if row.context_mode is not None:
        stream.context_mode = row.context_mode.lower()
        return
    first_hash = next(iter(row.hashes), None)
    graph.num_later += is_later
    graph.num_continued += is_later and first_hash is not None and first_hash == stream.first_hash
    stream.first_hash = first_hash


def _link(graph: _Graph) -> None:
    """Set each session's parent and the turn that joins it."""
    streams, positions = graph.streams.values(), graph.positions
    for stream in streams:
        for name in stream.waits.get(0, ()):
            parent, index = positions.get(name, (stream, 0))
            if parent is not stream and stream.parent_id is None:
                stream.parent_id, stream.parent_turn = parent.session_id, index
    for stream in streams:
        for index, names in stream.waits.items():
            for name in names if index else ():
                child, position = positions.get(name, (stream, 0))
                if child.parent_id == stream.session_id and position == len(child.rows) - 1:
                    child.join_turn = index


def _block_tokens(file: TraceFile, graph: _Graph) -> int:
    if graph.block_sizes:
        return graph.block_sizes[0]
    raise TraceError(
        "no block size fits all block counts; expected a power of two up to 16,384",
        source=file.source,
        where="hash_ids",
        hint=_HINT,
    )


def _sessions(
    source: str, graph: _Graph, block_tokens: int, interner: PrefixInterner, scope: int
) -> Iterator[Session]:
    plays: dict[str, int] = {}
    streams = list(graph.streams.values())
    for stream in parents_first(streams, lambda one: one.session_id, lambda one: one.parent_id):
        rows = graph.spool.read(stream.rows)
        first = rows[0]
        own_scope = scope
        if first.play_id is not None:
            if first.play_id not in plays:
                plays[first.play_id] = interner.own_scope()
            own_scope = plays[first.play_id]
        trail = interner.trail(own_scope)
        turns: list[Turn] = []
        mode = graph.context_mode(stream)
        prompts = _prompts(source, stream.session_id, rows, mode, block_tokens)
        for index, (num_tokens, hashes) in enumerate(prompts):
            after = rows[index + 1] if index + 1 < len(rows) else None
            before = rows[index - 1] if index else None
            turn = _turn(before, rows[index], after, trail.extend(hashes))
            turns.append(replace(turn, prompt_tokens=num_tokens))
        has_start = stream.parent_id is None and first.time_ms is not None
        yield Session(
            stream.session_id,
            block_tokens,
            tuple(turns),
            source,
            start_s=(first.time_ms or 0.0) / 1000 if has_start else None,
            parent_id=stream.parent_id,
            parent_turn=stream.parent_turn,
            join_turn=stream.join_turn,
        )


def _prompts(
    source: str, session_id: str, rows: list[_Row], mode: str, block_tokens: int
) -> Iterator[tuple[int, list[int]]]:
    """Yield each whole prompt's length and the hashes of its full blocks."""
    if mode not in (_WITH_ANSWERS, _WITHOUT_ANSWERS):
        for row in rows:
            yield row.input_length, row.hashes[: row.input_length // block_tokens]
        return
    prompt = PromptDeltas(session_id, block_tokens)
    for row in rows:
        prompt.add(row.hashes, row.input_length)
        if prompt.num_tokens > MAX_TOKENS:
            raise TraceError(
                f"its rows add up to more than {MAX_TOKENS:,} tokens",
                source=source,
                where=f"session {session_id!r}, input_length",
            )
        yield prompt.num_tokens, prompt.hashes()
        if mode == _WITH_ANSWERS:
            prompt.add_unnamed(row.output_length)


def _turn(before: _Row | None, row: _Row, after: _Row | None, block_ids: tuple[int, ...]) -> Turn:
    tools = () if after is None else tuple(_tool_spans(after))
    return Turn(
        gap_s=0.0 if before is None else _gap_s(before, row),
        prompt_tokens=row.input_length,
        output_tokens=row.output_length,
        block_ids=block_ids,
        trigger="tool_result" if row.tool_events else "user",
        ended_by="tool" if tools else "unknown",
        tool_name=decisive_tool(tools)[0],
        model=row.model or "",
        tools=tools,
    )


def _gap_s(before: _Row, row: _Row) -> float:
    wait_ms = row.wait_ms()
    if wait_ms is None:
        wait_ms = max(0.0, (row.time_ms or 0.0) - (before.time_ms or 0.0))
    return wait_ms / 1000


def _tool_spans(row: _Row) -> Iterator[ToolSpan]:
    """Yield the tools whose results a request carries, timed from the previous answer."""
    answer_ms = 0.0
    if row.time_ms is not None:
        answer_ms = row.time_ms - (row.wait_ms() or 0.0)
    for event in row.tool_events:
        start_ms, end_ms = event.started_at_unix_ms, event.ended_at_unix_ms
        if start_ms is None and end_ms is not None and event.duration_ms is not None:
            start_ms = end_ms - event.duration_ms
        yield ToolSpan(
            event.tool_class,
            start_s=None if start_ms is None else _from(answer_ms, start_ms),
            end_s=None
            if start_ms is None or end_ms is None
            else _from(answer_ms, max(start_ms, end_ms)),
            is_error=None if event.status is None else event.status in ("error", "failed"),
        )


def _from(answer_ms: float, time_ms: float) -> float:
    # Rounded to a nanosecond, which undoes the error of the subtraction.
    return round(max(0.0, time_ms - answer_ms), 6) / 1000
