"""Reader of Mooncake's request traces: open-loop arrivals with block hashes, one a line.

Known: when each request arrived, its lengths, and the hashes of its 512-token blocks, the partial
last one included. In the published conversation trace a hash has only ever one predecessor and
one depth, so equal hash = equal prefix; chaining makes sure of it for any file.

Not known: which requests belong to one conversation, and what anybody waited for. Each request
is a session of one turn that arrives at `Session.start_s`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.json_lines import LineFile
from holdfast.traces.formats.reading import Reading
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn

__all__ = ["FIELDS", "read_mooncake"]

FIELDS = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
"""A first line with all of these is of this format."""

_BLOCK_TOKENS = 512
_HINT = "expected one request a line: {timestamp (ms), input_length, output_length, hash_ids}"

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Request(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: _Count
    hash_ids: list[_Count]


def read_mooncake(
    file: LineFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; taking its sessions adds their chains to `interner`.

    Args:
        file: The file.
        interner: Shared by the files of one reading.
        scope: This file's own scope in it (> 0).
        rng: Chooses where in the recording to begin. Shuffled arrivals would have neither the
            recorded load nor the recorded sharing, so what lies before the beginning follows at
            the end, one length of the recording later. None begins at the beginning.

    Raises:
        TraceError: A line is not such a request, or there is none.
    """
    requests = list(file.decode(_Request, hint=_HINT))
    if not requests:
        raise TraceError("holds no request", source=file.source, hint=_HINT)
    for line, request in requests:
        _check_blocks(file, line, request)
    requests.sort(key=lambda numbered: numbered[1].timestamp)
    begin = 0 if rng is None else rng.randrange(len(requests))
    return Reading(len(requests), 0, _sessions(file.source, requests, begin, interner, scope))


def _check_blocks(file: LineFile, line: int, request: _Request) -> None:
    num_blocks = -(-request.input_length // _BLOCK_TOKENS)
    if len(request.hash_ids) > num_blocks:
        raise file.error(
            f"{len(request.hash_ids)} blocks of {_BLOCK_TOKENS} tokens; expected at most "
            f"{num_blocks} for `input_length` {request.input_length}",
            line=line,
            field="hash_ids",
        )


def _sessions(
    source: str,
    requests: list[tuple[int, _Request]],
    begin: int,
    interner: PrefixInterner,
    scope: int,
) -> Iterator[Session]:
    name = Path(source).name.partition(".")[0]
    span_ms = requests[-1][1].timestamp - requests[0][1].timestamp
    lap_ms = span_ms + span_ms / max(1, len(requests) - 1)
    later = [(line, request, 0.0) for line, request in requests[begin:]]
    earlier = [(line, request, lap_ms) for line, request in requests[:begin]]
    for line, request, shift_ms in (*later, *earlier):
        num_full = request.input_length // _BLOCK_TOKENS
        turn = Turn(
            gap_s=0.0,
            prompt_tokens=request.input_length,
            output_tokens=request.output_length,
            block_ids=interner.trail(scope).extend(request.hash_ids[:num_full]),
        )
        yield Session(
            f"{name}-{line}",
            _BLOCK_TOKENS,
            (turn,),
            source,
            start_s=(request.timestamp + shift_ms) / 1000,
        )
