"""Reader of Mooncake's request traces: open-loop arrivals with block hashes.

Known: arrival times, lengths, and the hashes of 512-token blocks, the partial last one included.
In the published conversation trace a hash has one predecessor and one depth, so equal hashes mean
equal prefixes; the interner ensures it for any file.

Not known: which requests belong to one conversation. Each request is a session of one turn that
arrives at `Session.start_s`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from holdfast.traces.formats.arrivals import Arrival, Arrivals
from holdfast.traces.formats.quantities import Count, Milliseconds, PromptTokens, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.row_checks import too_many_blocks
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn

__all__ = ["LAYOUTS", "read_mooncake"]

LAYOUTS = (frozenset({"timestamp", "input_length", "output_length", "hash_ids"}),)
"""A first line with all of these fields is of this format."""

_BLOCK_TOKENS = 512
_HINT = "expected one request a line: {timestamp (ms), input_length, output_length, hash_ids}"


class _Request(msgspec.Struct):
    timestamp: Milliseconds
    input_length: PromptTokens
    output_length: Tokens
    hash_ids: list[Count]


def read_mooncake(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: This file's scope of hashes (> 0).
        rng: Chooses the first request; earlier ones follow at the end, shifted by the length of
            the recording. A shuffle would change the load and the sharing. None starts with the
            first request.

    Raises:
        TraceError: A line is not such a request, or there is none.
    """
    arrivals = Arrivals(file, _requests, hint=_HINT)
    return Reading(arrivals.num_rows, 0, _sessions(file, arrivals.rotated(rng), interner, scope))


def _requests(file: TraceFile) -> Iterator[Arrival[_Request]]:
    for line, request in file.decode(_Request, hint=_HINT):
        problem = too_many_blocks(file, line, request.hash_ids, request.input_length, _BLOCK_TOKENS)
        if problem is None:
            yield Arrival(request.timestamp, line, request)
        else:
            file.refuse(problem)


def _sessions(
    file: TraceFile,
    arrivals: Iterator[tuple[Arrival[_Request], float]],
    interner: PrefixInterner,
    scope: int,
) -> Iterator[Session]:
    for arrival, shift_ms in arrivals:
        request = arrival.row
        num_full = request.input_length // _BLOCK_TOKENS
        turn = Turn(
            gap_s=0.0,
            prompt_tokens=request.input_length,
            output_tokens=request.output_length,
            block_ids=interner.trail(scope).extend(request.hash_ids[:num_full]),
        )
        yield Session(
            f"{file.label}-{arrival.line}",
            _BLOCK_TOKENS,
            (turn,),
            file.source,
            start_s=(arrival.at + shift_ms) / 1000,
        )
