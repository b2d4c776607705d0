"""Reader of TraceLab's rounds of Claude Code and Codex: one model call a line.

Known: lengths, cached tokens, tools with their times and errors, and the times of a round's parts.

Assumed: a prompt shares its cached tokens with the previous one, a first prompt with those of the
same provider and model; a cold cache reduces what it seems to share. An answer without a tool call
goes to a human. A round begins with the last input before its first output; Codex records that
input at the end of the previous round.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.answer import decisive_tool
from holdfast.traces.formats.quantities import Count, Milliseconds, PromptTokens, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import reordered
from holdfast.traces.prefix_lengths import PrefixLengths
from holdfast.traces.record import Session, ToolSpan, Trigger, Turn

__all__ = ["LAYOUTS", "read_tracelab"]

LAYOUTS = (frozenset({"session_id", "round_index", "input_tokens_total", "prefix_tokens"}),)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 64
_INPUTS = ("user_message", "tool_result")
_OUTPUTS = ("reasoning", "text", "tool_call")
_HINT = (
    "expected one round a line: {session_id, round_index, input_tokens_total, prefix_tokens, "
    "output_tokens, timing_events: [{event_type, timestamp}], tools: [{tool_name, …}], …}"
)

# A time without a zone would depend on the reading machine.
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Event(msgspec.Struct):
    event_type: str
    timestamp: _Moment | None = None


class _Tool(msgspec.Struct):
    tool_name: str | None = None
    emitted_at: _Moment | None = None
    result_at: _Moment | None = None
    tool_wall_latency_ms: Milliseconds | None = None
    is_error: bool | None = None


class _Round(msgspec.Struct):
    session_id: str
    round_index: Count
    input_tokens_total: PromptTokens
    prefix_tokens: Tokens
    output_tokens: Tokens
    model: str | None = None
    provider: str | None = None
    timing_events: list[_Event] = []
    tools: list[_Tool] = []


@dataclass(frozen=True, slots=True)
class _Times:
    """Times of a round's request and answer in unix seconds; None if not recorded."""

    request_s: float | None
    answer_s: float | None
    trigger: Trigger


def read_tracelab(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their blocks to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: Ignored: there are no hashes.
        rng: Shuffles the sessions; None keeps their order.

    Raises:
        TraceError: A line is not such a round or repeats one, or there is none.
    """
    del scope
    sessions: dict[str, dict[int, int]] = {}
    spool = RowSpool(file.source, _Round)
    for line, row in file.decode(_Round, hint=_HINT):
        rounds = sessions.setdefault(row.session_id, {})
        if row.round_index in rounds:
            file.refuse(
                file.error(
                    f"a second round {row.round_index} of session {row.session_id!r}; expected "
                    "each once",
                    line=line,
                    field="round_index",
                )
            )
        else:
            rounds[row.round_index] = spool.add(row)
    if not sessions:
        raise TraceError("holds no round", source=file.source, hint=_HINT)
    streams = [[rounds[index] for index in sorted(rounds)] for rounds in sessions.values()]
    prefixes = PrefixLengths(interner, block_tokens=_BLOCK_TOKENS)
    num_estimated = 0
    for stream in map(spool.read, streams):
        prefixes.note_first(_group(stream), stream[0].input_tokens_total)
        num_estimated += sum(
            before.answer_s is None or after.request_s is None
            for before, after in pairwise(_times(stream))
        )
    built = _sessions(file.source, map(spool.read, streams), prefixes)
    return Reading(len(streams), num_estimated, reordered(built, rng))


def _group(rounds: list[_Round]) -> tuple[str | None, str | None]:
    """Return the key of sessions that share a system message and tools."""
    return rounds[0].provider, rounds[0].model


def _times(rounds: list[_Round]) -> Iterator[_Times]:
    late: list[_Event] = []
    for row in rounds:
        events = [event for event in row.timing_events if event.timestamp is not None]
        outputs = [at for at, event in enumerate(events) if event.event_type in _OUTPUTS]
        first = outputs[0] if outputs else len(events)
        inputs = late + [event for event in events[:first] if event.event_type in _INPUTS]
        last = max(inputs, key=_unix_s, default=events[first] if outputs else None)
        yield _Times(
            request_s=None if last is None else _unix_s(last),
            answer_s=_unix_s(events[outputs[-1]]) if outputs else None,
            trigger="tool_result"
            if last is not None and last.event_type == "tool_result"
            else "user",
        )
        late = [event for event in events[first:] if event.event_type in _INPUTS]


def _unix_s(event: _Event) -> float:
    return 0.0 if event.timestamp is None else event.timestamp.timestamp()


def _sessions(
    source: str, sessions: Iterable[list[_Round]], prefixes: PrefixLengths
) -> Iterator[Session]:
    for rounds in sessions:
        lengths = ((row.input_tokens_total, row.prefix_tokens) for row in rounds)
        prompts = prefixes.of(_group(rounds), lengths)
        turns: list[Turn] = []
        answered_s: float | None = None
        for row, time, block_ids in zip(rounds, _times(rounds), prompts, strict=True):
            turns.append(_turn(row, time, answered_s, block_ids))
            answered_s = time.answer_s
        yield Session(rounds[0].session_id, _BLOCK_TOKENS, tuple(turns), source)


def _turn(row: _Round, time: _Times, answered_s: float | None, block_ids: tuple[int, ...]) -> Turn:
    gap_s = latency_s = None
    if time.request_s is not None:
        gap_s = None if answered_s is None else max(0.0, time.request_s - answered_s)
        latency_s = None if time.answer_s is None else max(0.0, time.answer_s - time.request_s)
    spans = tuple(_span(tool, time.answer_s) for tool in row.tools if tool.tool_name)
    return Turn(
        gap_s=gap_s or 0.0,
        prompt_tokens=row.input_tokens_total,
        output_tokens=row.output_tokens,
        block_ids=block_ids,
        trigger=time.trigger,
        ended_by="tool" if row.tools else "human",
        tool_name=decisive_tool(spans)[0],
        model=row.model or "",
        latency_s=latency_s,
        cached_tokens=row.prefix_tokens,
        tools=spans,
    )


def _span(tool: _Tool, answer_s: float | None) -> ToolSpan:
    start_s = end_s = None
    if answer_s is not None and tool.emitted_at is not None:
        # A call is recorded during its answer, but begins at the answer's end at the earliest.
        start_s = max(0.0, tool.emitted_at.timestamp() - answer_s)
        if tool.tool_wall_latency_ms is not None:
            end_s = start_s + tool.tool_wall_latency_ms / 1000
        elif tool.result_at is not None:
            end_s = max(start_s, tool.result_at.timestamp() - answer_s)
    return ToolSpan(tool.tool_name or "", None, start_s, end_s, tool.is_error)
