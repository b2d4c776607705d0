"""Reader of `holdfast replay --records`: one turn of an endpoint a line.

Known: lengths, times, cached tokens, the tokens that a prompt appends to its session's, and the
tokens that no session of the run had sent before.

Assumed: a prompt shares the tokens that it does not append with its session's previous prompt, a
first prompt with the other first ones of the run. Each policy and each endpoint has its own
sessions. Not known: how answers ended. A failed turn is dropped with those after it, which the
replay did not send.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import wrong_turn
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import reordered
from holdfast.traces.prefix_lengths import PrefixLengths
from holdfast.traces.record import Session, Turn

__all__ = ["LAYOUTS", "read_replay_records"]

LAYOUTS = (frozenset({"policy", "session_id", "turn_index", "sent_s", "appended_tokens"}),)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 64
_HINT = "expected one turn a line, as `holdfast replay --records` writes them"


class _Record(msgspec.Struct):
    policy: str
    session_id: str
    turn_index: Count
    sent_s: Seconds
    prompt_tokens: PromptTokens
    appended_tokens: Tokens
    first_seen_tokens: Tokens
    output_tokens: Tokens
    last_token_s: Seconds | None = None
    cached_tokens: Tokens | None = None
    error_kind: str | None = None


def read_replay_records(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their blocks to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: Ignored: there are no hashes.
        rng: Shuffles the sessions; None keeps their order.

    Raises:
        TraceError: A line is not such a turn or not the next of its session, or there is none.
    """
    del scope
    streams: dict[tuple[str, str], array[int]] = {}
    spool = RowSpool(file.source, _Record)
    prefixes = PrefixLengths(interner, block_tokens=_BLOCK_TOKENS)
    for line, record in file.decode(_Record, hint=_HINT):
        stream = streams.setdefault((record.policy, record.session_id), array("q"))
        if record.error_kind is not None or record.last_token_s is None:
            continue
        name = f"turn {record.turn_index} of session {record.session_id!r}"
        problem = wrong_turn(file, line, "turn_index", name, record.turn_index, len(stream))
        if problem is not None:
            file.refuse(problem)
            continue
        if not stream:
            prefixes.note_first(record.policy, record.prompt_tokens)
        stream.append(spool.add(record))
    answered = [stream for stream in streams.values() if stream]
    if not answered:
        raise TraceError("holds no turn that was answered", source=file.source, hint=_HINT)
    sessions = _sessions(file.source, map(spool.read, answered), prefixes)
    return Reading(len(answered), 0, reordered(sessions, rng))


def _sessions(
    source: str, streams: Iterable[list[_Record]], prefixes: PrefixLengths
) -> Iterator[Session]:
    for stream in streams:
        prompts = prefixes.of(stream[0].policy, _lengths(stream))
        turns: list[Turn] = []
        answered_s: float | None = None
        for record, block_ids in zip(stream, prompts, strict=True):
            end_s = record.last_token_s or record.sent_s
            turns.append(
                Turn(
                    gap_s=0.0 if answered_s is None else max(0.0, record.sent_s - answered_s),
                    prompt_tokens=record.prompt_tokens,
                    output_tokens=record.output_tokens,
                    block_ids=block_ids,
                    latency_s=max(0.0, end_s - record.sent_s),
                    cached_tokens=record.cached_tokens,
                )
            )
            answered_s = end_s
        name = f"{stream[0].policy}/{stream[0].session_id}"
        yield Session(name, _BLOCK_TOKENS, tuple(turns), source)


def _lengths(stream: list[_Record]) -> Iterator[tuple[int, int]]:
    for record in stream:
        added = record.appended_tokens if record.turn_index else record.first_seen_tokens
        yield record.prompt_tokens, max(0, record.prompt_tokens - added)
