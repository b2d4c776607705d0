"""Which format a file is of, by its suffix and by what is in its first objects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from msgspec import Raw

from holdfast.errors import TraceError
from holdfast.traces.formats.registry import (
    READERS,
    FileKind,
    TraceReader,
    closest_layout,
    reader_for,
)
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, TraceFile
from holdfast.traces.storage import COMPRESSIONS

__all__ = ["SUFFIXES", "UnknownLayoutError", "reader_of"]

_KINDS: dict[str, FileKind] = {".json": "document", ".jsonl": "lines"}
SUFFIXES = tuple(f"{kind}{compression}" for kind in _KINDS for compression in COMPRESSIONS)
"""Of the files that are read."""


class UnknownLayoutError(TraceError):
    """A file is of no format that is read."""


def reader_of(file: TraceFile, path: Path) -> TraceReader:
    """The reader of a file; looks into its beginning, or into a document as a whole.

    Raises:
        UnknownLayoutError: It is of no format that is read.
        TraceError: It is empty, damaged or cannot be read.
    """
    kind = next(
        kind
        for ending, kind in _KINDS.items()
        if path.name.endswith(tuple(f"{ending}{compression}" for compression in COMPRESSIONS))
    )
    if kind == "document":
        objects = iter([file.document(dict[str, Raw])])
    else:
        objects = islice(file.fields(), MAX_PREAMBLE_LINES)
    first: dict[str, Raw] | None = None
    for record in objects:
        reader = reader_for(kind, record)
        if reader is not None:
            return reader
        first = record if first is None else first
    if first is None:
        raise TraceError("holds no line", source=file.source)
    raise _unknown_layout(file, kind, first)


def _unknown_layout(file: TraceFile, kind: FileKind, record: Mapping[str, Raw]) -> TraceError:
    names = dict.fromkeys(reader.name for reader in READERS if reader.kind == kind)
    hint = f"such files are read of {', '.join(names)}; docs/traces.md describes them"
    closest = closest_layout(kind, record)
    if closest is not None:
        reader, missing = closest
        hint = f"{hint}. {reader.name}, which comes closest, also has {', '.join(missing)}"
    return UnknownLayoutError(
        f"unknown layout with the fields {', '.join(sorted(record)) or '(none)'}",
        source=file.source,
        where=None if kind == "document" else "line 1",
        hint=hint,
    )
