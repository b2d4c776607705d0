"""Reader of Alibaba's Bailian traces: requests with block hashes and a parent.

Known: arrivals, lengths, hashes of 16-token blocks, and the request that a request continues.

A conversation is a session: a request without a known parent and all that continue it, in the
order of time. A request that does not continue the one before it is a fork.

Estimated: every gap. Latencies are not recorded, so the time between two requests includes the
answer. Not known: how answers ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.quantities import Count, PromptTokens, Seconds, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import second_request, too_many_blocks
from holdfast.traces.formats.row_spool import RowSpool
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.order import reordered
from holdfast.traces.record import Session, SessionEvent, Turn

__all__ = ["LAYOUTS", "read_bailian"]

LAYOUTS = (frozenset({"chat_id", "parent_chat_id", "timestamp", "input_length", "hash_ids"}),)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 16
_HINT = (
    "expected one request a line: {chat_id, parent_chat_id (-1 for none), timestamp (s), "
    "input_length, output_length, hash_ids}"
)


class _Request(msgspec.Struct):
    chat_id: int
    parent_chat_id: int
    timestamp: Seconds
    input_length: PromptTokens
    output_length: Tokens
    hash_ids: list[Count]


def read_bailian(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0).
        rng: Chooses the first arrival as `reordered` does; None keeps the order of time.

    Raises:
        TraceError: A line is not such a request, has more blocks than fit or repeats an id, or
            there is no request.
    """
    spool = RowSpool(file.source, _Request)
    parents: dict[int, int] = {}
    # Arrival time and spool offset of each request.
    stored: dict[int, tuple[float, int]] = {}
    for line, request in file.decode(_Request, hint=_HINT):
        problem = _problem(file, line, request, parents)
        if problem is not None:
            file.refuse(problem)
            continue
        parents[request.chat_id] = request.parent_chat_id
        stored[request.chat_id] = (request.timestamp, spool.add(request))
    if not stored:
        raise TraceError("holds no request", source=file.source, hint=_HINT)
    conversations: dict[int, list[tuple[float, int]]] = {}
    for chat_id, root in _roots(parents):
        conversations.setdefault(root, []).append(stored[chat_id])
    for requests in conversations.values():
        requests.sort()
    ordered = sorted(conversations.values(), key=lambda requests: requests[0][0])
    num_continued = sum(len(requests) - 1 for requests in ordered)
    read = (spool.read(offset for _, offset in requests) for requests in ordered)
    return Reading(
        len(ordered), num_continued, reordered(_sessions(file, read, interner, scope), rng)
    )


def _roots(parents: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield each request with the first one of its conversation."""
    roots: dict[int, int] = {}
    for chat_id in parents:
        path: dict[int, None] = {}
        at = root = chat_id
        while at in parents and at not in roots and at not in path:
            path[at] = None
            at, root = parents[at], at
        roots.update(dict.fromkeys(path, roots.get(at, root)))
        yield chat_id, roots[chat_id]


def _problem(
    file: TraceFile, line: int, request: _Request, parents: Mapping[int, int]
) -> TraceError | None:
    if request.chat_id in parents:
        return second_request(file, line, "chat_id", request.chat_id)
    return too_many_blocks(file, line, request.hash_ids, request.input_length, _BLOCK_TOKENS)


def _sessions(
    file: TraceFile, conversations: Iterable[list[_Request]], interner: PrefixInterner, scope: int
) -> Iterator[Session]:
    for requests in conversations:
        trail = interner.trail(scope)
        turns: list[Turn] = []
        events: list[SessionEvent] = []
        before: _Request | None = None
        for index, request in enumerate(requests):
            if before is not None and request.parent_chat_id != before.chat_id:
                events.append(SessionEvent("fork", index))
            num_full = request.input_length // _BLOCK_TOKENS
            turns.append(
                Turn(
                    gap_s=0.0 if before is None else request.timestamp - before.timestamp,
                    prompt_tokens=request.input_length,
                    output_tokens=request.output_length,
                    block_ids=trail.extend(request.hash_ids[:num_full]),
                )
            )
            before = request
        yield Session(
            f"{file.label}-{requests[0].chat_id}",
            _BLOCK_TOKENS,
            tuple(turns),
            file.source,
            start_s=requests[0].timestamp,
            events=tuple(events),
        )
