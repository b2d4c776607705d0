"""Finds a file's format from its suffix and its first objects."""

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
"""Suffixes of trace files."""


class UnknownLayoutError(TraceError):
    """A file has no known format."""


def reader_of(file: TraceFile, path: Path) -> TraceReader:
    """Return a file's reader; reads its first lines, or the whole document.

    Raises:
        UnknownLayoutError: The file has no known format.
        TraceError: The file is empty, damaged or unreadable.
    """
    kinds = (
        kind
        for ending, kind in _KINDS.items()
        if path.name.endswith(tuple(f"{ending}{compression}" for compression in COMPRESSIONS))
    )
    kind: FileKind = next(kinds, "lines")
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
    hint = f"known formats are {', '.join(names)}; docs/traces.md describes them"
    closest = closest_layout(kind, record)
    if closest is not None:
        reader, missing = closest
        hint = f"{hint}. {reader.name} is the closest, and also has {', '.join(missing)}"
    return UnknownLayoutError(
        f"unknown layout with the fields {', '.join(sorted(record)) or '(none)'}",
        source=file.source,
        where=None if kind == "document" else "line 1",
        hint=hint,
    )
