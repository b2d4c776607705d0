"""Reader of Holdfast's decision log: the turns that an engine served.

Known: arrivals and ends of turns, lengths, sessions, turn ends, and how much of each prompt was
cached.

Assumed: a prompt shares with its session's previous prompt, a first prompt with all other first
prompts, the tokens that were cached or would have been in an infinite cache. Logs without `missed`
lines do not have the latter, so evicted blocks reduce what a prompt seems to share. Each start of
an engine has its own sessions, and engines may share a file. Turns without an end, which were
running or dropped from the log, are skipped.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from holdfast.core.miss import REPEATED_REASONS
from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import reordered
from holdfast.traces.prefix_lengths import PrefixLengths
from holdfast.traces.record import EndedBy, Session, Turn

__all__ = ["LAYOUTS", "read_decisions"]

LAYOUTS = (
    frozenset({"time_s", "event", "request", "session"}),
    frozenset({"time_s", "event", "reason", "num_blocks"}),
)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 64
_HINT = "expected Holdfast's decision log, with the lengths of its turns"


class _Event(msgspec.Struct):
    time_s: Seconds
    event: str
    engine: Count = 0
    pid: Count = 0
    request: str | None = None
    session: Count | None = None
    turn: Count = 0
    prompt_tokens: PromptTokens | None = None
    resident_blocks: Count = 0
    missing_blocks: Count = 0
    output_tokens: Tokens | None = None
    kind: str = "unknown"
    tool: str = ""
    cached_tokens: Count = 0
    missed: dict[str, Count] = {}


class _Served(msgspec.Struct):
    """One turn with its arrival and its end.

    `repeated_tokens` are those of its prompt that an infinite cache would have had.
    """

    arrived_s: float
    ended_s: float
    prompt_tokens: int
    cached_tokens: int
    repeated_tokens: int
    output_tokens: int


_Process = tuple[int, int]  # engine, process id


@dataclass(slots=True)
class _Start:
    """One start of an engine: its number in the file, and its running turns.

    `misses` has the `missed` lines of those that are about to end.
    """

    number: int
    last_s: float = 0.0
    running: dict[str, _Event] = field(default_factory=dict)
    misses: dict[str, _Event] = field(default_factory=dict)


@dataclass(slots=True)
class _Stream:
    """One session.

    Attributes:
        first_s: Arrival of its first turn.
        turns: Spool offsets of its turns, in order of their end.
        numbers: The engine's number of each turn, increasing; 0 in logs without them.
        ends: Each turn's end, as an index into `_Log.ends`.
    """

    first_s: float
    turns: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class _Log:
    """The sessions read so far; `ends` numbers the pairs of kind and tool."""

    spool: RowSpool[_Served]
    prefixes: PrefixLengths
    sessions: dict[tuple[int, int], _Stream] = field(default_factory=dict)
    starts: dict[_Process, _Start] = field(default_factory=dict)
    num_starts: int = 0
    ends: dict[tuple[str, str], int] = field(default_factory=dict)


def read_decisions(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their blocks to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: Ignored: there are no hashes.
        rng: Chooses the first arrival as `reordered` does; None keeps the order of time.

    Raises:
        TraceError: A line is not such a record, a turn has no lengths, or no turn ended.
    """
    del scope
    spool = RowSpool(file.source, _Served)
    log = _Log(spool, PrefixLengths(interner, block_tokens=_BLOCK_TOKENS))
    for line, event in file.decode(_Event, hint=_HINT):
        missing = _add_record(log, _start_of(log, event), event)
        if missing:
            file.refuse(file.error("is missing", line=line, field=missing, hint=_HINT))
    if not log.sessions:
        raise TraceError("holds no turn that ended", source=file.source, hint=_HINT)
    return Reading(len(log.sessions), 0, reordered(_sessions(file, log), rng))


def _start_of(log: _Log, event: _Event) -> _Start:
    """Return the engine's start that a record belongs to.

    In logs without starts, a clock that goes back marks a new one.
    """
    process = (event.engine, event.pid)
    start = log.starts.get(process)
    is_new = event.event == "engine_started"
    if start is None or is_new or (not event.pid and event.time_s < start.last_s):
        start = log.starts[process] = _Start(log.num_starts)
        log.num_starts += 1
    start.last_s = event.time_s
    return start


def _add_record(log: _Log, start: _Start, event: _Event) -> str:
    """Add one record; return the name of a missing field, "" for none."""
    if event.event not in ("turn_arrived", "missed", "turn_ended", "pause_explained"):
        return ""
    if event.session is None:
        return "session"
    if event.event == "pause_explained":
        _set_turn_end(log, start, event.session, event)
        return ""
    if event.request is None:
        return "request"
    if event.event == "turn_arrived":
        start.running[event.request] = event
        return "" if event.prompt_tokens is not None else "prompt_tokens"
    if event.event == "missed":
        start.misses[event.request] = event
        return ""
    if event.output_tokens is None:
        return "output_tokens"
    arrival = start.running.pop(event.request, None)
    missed = start.misses.pop(event.request, None)
    if arrival is not None and arrival.prompt_tokens is not None:
        turn = _served(arrival, arrival.prompt_tokens, event, missed)
        _add_turn(log, (start.number, event.session), turn, event)
    return ""


def _set_turn_end(log: _Log, start: _Start, session: int, event: _Event) -> None:
    """Set a turn's end, which the engine may learn after it logs the turn."""
    stream = log.sessions.get((start.number, session))
    if stream is not None:
        index = bisect_left(stream.numbers, event.turn)
        if index < len(stream.numbers) and stream.numbers[index] == event.turn:
            stream.ends[index] = _end_index(log, event)


def _end_index(log: _Log, event: _Event) -> int:
    return log.ends.setdefault((event.kind, event.tool), len(log.ends))


def _served(arrival: _Event, prompt_tokens: int, end: _Event, missed: _Event | None) -> _Served:
    num_blocks = arrival.resident_blocks + arrival.missing_blocks
    cached = prompt_tokens * arrival.resident_blocks // max(1, num_blocks)
    lost = 0
    if missed is not None:
        cached = missed.cached_tokens
        lost = sum(n for reason, n in missed.missed.items() if reason in REPEATED_REASONS)
    return _Served(
        arrived_s=arrival.time_s,
        ended_s=end.time_s,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached,
        repeated_tokens=min(cached + lost, prompt_tokens),
        output_tokens=end.output_tokens or 0,
    )


def _add_turn(log: _Log, session: tuple[int, int], turn: _Served, event: _Event) -> None:
    stream = log.sessions.get(session)
    if stream is None:
        stream = log.sessions[session] = _Stream(turn.arrived_s)
        log.prefixes.note_first("", turn.prompt_tokens)
    stream.turns.append(log.spool.add(turn))
    stream.numbers.append(event.turn)
    stream.ends.append(_end_index(log, event))


def _sessions(file: TraceFile, log: _Log) -> Iterator[Session]:
    ordered = sorted(log.sessions.items(), key=lambda item: (item[0][0], item[1].first_s))
    ends = list(log.ends)
    first_s = {start: stream.first_s for (start, _), stream in reversed(ordered)}
    for (start, number), stream in ordered:
        turns = log.spool.read(stream.turns)
        lengths = ((turn.prompt_tokens, turn.repeated_tokens) for turn in turns)
        built: list[Turn] = []
        ended_s: float | None = None
        blocks = log.prefixes.of("", lengths)
        for turn, end, block_ids in zip(turns, stream.ends, blocks, strict=True):
            built.append(_turn(turn, ends[end], ended_s, block_ids))
            ended_s = turn.ended_s
        yield Session(
            f"{file.label}-{start}-{number}",
            _BLOCK_TOKENS,
            tuple(built),
            file.source,
            start_s=stream.first_s - first_s[start],
        )


def _turn(
    served: _Served, end: tuple[str, str], ended_s: float | None, block_ids: tuple[int, ...]
) -> Turn:
    kind, tool = end
    ended_by: EndedBy = "tool"
    if kind in ("human", "unknown"):
        ended_by = "human" if kind == "human" else "unknown"
    return Turn(
        gap_s=0.0 if ended_s is None else max(0.0, served.arrived_s - ended_s),
        prompt_tokens=served.prompt_tokens,
        output_tokens=served.output_tokens,
        block_ids=block_ids,
        ended_by=ended_by,
        tool_name=tool or None,
        latency_s=served.ended_s - served.arrived_s,
        cached_tokens=served.cached_tokens,
    )
