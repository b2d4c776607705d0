"""Reader of Azure's LLM inference traces: comma-separated arrivals and lengths.

Known: when each request arrived and its lengths. Nothing says which requests share a prompt or
belong together: each is a session of one turn whose blocks are nobody else's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from holdfast.traces.formats.arrivals import Arrival, Arrivals
from holdfast.traces.formats.quantities import PromptTokens, Tokens
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.table_lines import table_rows
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn

__all__ = ["LAYOUTS", "read_azure"]

LAYOUTS = (frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"}),)
"""A table with all of these columns is of this format."""

_BLOCK_TOKENS = 64
_HINT = "expected one request a row: TIMESTAMP,ContextTokens,GeneratedTokens"


class _Request(msgspec.Struct):
    timestamp: str = msgspec.field(name="TIMESTAMP")
    prompt_tokens: PromptTokens = msgspec.field(name="ContextTokens")
    output_tokens: Tokens = msgspec.field(name="GeneratedTokens")


def read_azure(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; taking its sessions reserves their ids in `interner`.

    Args:
        file: The file.
        interner: Shared by the files of one reading.
        scope: Not needed, as nothing is shared.
        rng: Chooses the arrival to begin with, as `rotation` does; None begins at the beginning.

    Raises:
        TraceError: A row is not such a request, or there is none.
    """
    del scope
    arrivals = Arrivals(file, _requests, hint=_HINT)
    sessions = _sessions(file, arrivals.first_at, arrivals.taken(rng), interner)
    return Reading(arrivals.num_rows, 0, sessions)


def _requests(file: TraceFile) -> Iterator[Arrival[_Request]]:
    for line, request in table_rows(file, _Request, hint=_HINT):
        arrived_s = _unix_s(request.timestamp)
        if arrived_s is None:
            file.refuse(
                file.error(
                    f"{request.timestamp!r}; expected a time such as 2023-11-16 18:17:03.9799600",
                    line=line,
                    field="TIMESTAMP",
                )
            )
        else:
            yield Arrival(arrived_s, line, request)


def _unix_s(timestamp: str) -> float | None:
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _sessions(
    file: TraceFile,
    first_s: float,
    arrivals: Iterator[tuple[Arrival[_Request], float]],
    interner: PrefixInterner,
) -> Iterator[Session]:
    for arrival, shift_s in arrivals:
        request = arrival.row
        block_ids = tuple(interner.fresh(request.prompt_tokens // _BLOCK_TOKENS))
        turn = Turn(0.0, request.prompt_tokens, request.output_tokens, block_ids)
        start_s = arrival.at - first_s + shift_s
        yield Session(
            f"{file.label}-{arrival.line}", _BLOCK_TOKENS, (turn,), file.source, start_s=start_s
        )
