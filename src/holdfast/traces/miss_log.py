"""Reads why turns missed from a decision log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from holdfast.core.miss_record import MissRecord
from holdfast.errors import TraceError
from holdfast.traces.formats.trace_file import TraceFile

__all__ = ["read_misses"]

_HINT = "expected Holdfast's decision log; HOLDFAST_DECISION_LOG=FILE writes one"


class _Line(msgspec.Struct):
    event: str


def read_misses(path: Path) -> Iterator[MissRecord]:
    """Yield the turns of a decision log, in the order of their ends.

    A last line without its end is ignored: the engine may be writing it.

    Raises:
        TraceError: The file cannot be read, or another line is none of a decision log.
    """
    file = TraceFile(str(path), path)
    lines = msgspec.json.Decoder(_Line)
    records = msgspec.json.Decoder(MissRecord)
    damaged: TraceError | None = None
    for number, line in file.lines():
        if damaged is not None:
            raise damaged
        try:
            if lines.decode(line).event == "missed":
                yield records.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            damaged = file.error(str(error), line=number, hint=_HINT)
            if line.endswith(b"\n"):
                raise damaged from error
