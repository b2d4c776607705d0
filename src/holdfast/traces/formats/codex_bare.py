"""Readers of Codex's rollouts before 0.34 and of its TypeScript client.

A first line or object has the session's id; items follow as in later rollouts, without an envelope.
Lengths and most times are not recorded: lengths are estimated, gaps are 0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime

import msgspec

from holdfast.errors import TraceError
from holdfast.traces.formats.codex import stream_of
from holdfast.traces.formats.codex_items import NOTHING, Line
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.trace_file import TraceFile
from holdfast.traces.formats.transcript import transcript_reading
from holdfast.traces.lineage import PrefixInterner

__all__ = ["DOCUMENT_LAYOUTS", "LINE_LAYOUTS", "read_bare_codex", "read_codex_document"]

LINE_LAYOUTS = (
    frozenset({"id", "timestamp", "instructions"}),
    frozenset({"record_type=state"}),
)
"""The first line of such a file, and a line for a change of its state."""

DOCUMENT_LAYOUTS = (frozenset({"session.id", "session.timestamp", "items"}),)
"""A document of the TypeScript client."""

_HINT = "expected {id, timestamp, instructions} and then one item a line: {type, role, content, …}"
_DOCUMENT_HINT = "expected one session: {session: {id, timestamp}, items: [{type, …}]}"


class _Bare(msgspec.Struct):
    type: str | None = None
    timestamp: datetime | None = None
    record_type: str | None = None
    id: str | None = None
    payload: msgspec.Raw = NOTHING


class _Document(msgspec.Struct):
    session: msgspec.Raw
    items: list[msgspec.Raw]


def _enveloped(file: TraceFile) -> Iterator[tuple[int | None, Line]]:
    """Yield each line as a line of a later rollout."""
    decoder = msgspec.json.Decoder(_Bare)
    for number, data in file.lines():
        written = msgspec.Raw(data)
        try:
            bare = file.decode_part(written, decoder, line=number, field="", hint=_HINT)
        except TraceError as error:
            file.refuse(error)
            continue
        if bytes(bare.payload) != b"null":
            yield number, Line(bare.type or "", bare.payload, bare.timestamp)
        elif bare.type is not None:
            yield number, Line("response_item", written, bare.timestamp)
        elif bare.record_type is None and bare.id is not None:
            yield number, Line("session_meta", written, bare.timestamp)


def _items(file: TraceFile) -> Iterator[tuple[int | None, Line]]:
    """Yield a document's items as lines of a later rollout."""
    document = file.document(_Document, hint=_DOCUMENT_HINT)
    yield None, Line("session_meta", document.session)
    for item in document.items:
        yield None, Line("response_item", item)


def read_bare_codex(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one file; iterating its sessions adds their prefixes to `interner`.

    Args:
        file: The file.
        interner: Shared by all files that are read together.
        scope: Ignored: content hashes are comparable between files.
        rng: Ignored: a file holds one session.

    Raises:
        TraceError: A line is not such an item or a file is damaged, and `file.on_skipped` is None.
    """
    del scope, rng
    return transcript_reading(file, [[stream_of(file, _enveloped)]], interner=interner)


def read_codex_document(
    file: TraceFile, *, interner: PrefixInterner, scope: int, rng: random.Random | None = None
) -> Reading:
    """Read one document as `read_bare_codex` reads a file of lines."""
    del scope, rng
    return transcript_reading(file, [[stream_of(file, _items)]], interner=interner)
