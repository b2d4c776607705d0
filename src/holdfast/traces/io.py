"""Trace files on disk: which they are, what layout they have, and their sessions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from msgspec import Raw

from holdfast.errors import TraceError
from holdfast.traces.formats import claude_code
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.registry import READERS, FileKind, TraceReader, reader_for
from holdfast.traces.formats.table_lines import column_names
from holdfast.traces.formats.trace_file import OnSkipped, TraceFile
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session
from holdfast.traces.storage import COMPRESSIONS, stored_digest

__all__ = ["FileReport", "read_sessions", "trace_files"]

_KINDS: dict[str, FileKind] = {".json": "document", ".jsonl": "lines", ".csv": "table"}
# Claude Code writes lines of other kinds before the first entry of a conversation.
_MAX_PREAMBLE_LINES = 64
_SUFFIXES = tuple(f"{kind}{compression}" for kind in _KINDS for compression in COMPRESSIONS)


@dataclass(frozen=True, slots=True)
class FileReport:
    """What reading one file brought to light.

    Attributes:
        path: The file.
        sha256: Digest of its bytes as stored, hexadecimal.
        num_sessions: Sessions it holds, sub-agents included; 0 for a file that only adds to
            another one's, None for one that is read as a stream.
        gaps: Evidence for the known gap defect of WEKA's format; empty for other formats.
        num_estimated_gaps: Gaps the file leaves out, taken from timestamps and latencies where it
            has them, else 0.
        format_name: Name of the format; "" for a file that only adds to another one's.
        num_estimated_lengths: Lengths of prompts and answers the file leaves out, estimated from
            their text.
        num_unanswered: Sessions left out because no request of theirs was answered.
    """

    path: Path
    sha256: str
    num_sessions: int | None
    gaps: GapEvidence = field(default_factory=GapEvidence)
    num_estimated_gaps: int = 0
    format_name: str = ""
    num_estimated_lengths: int = 0
    num_unanswered: int = 0

    @property
    def known_gap_defect(self) -> bool:
        """Whether recorded gaps look too long by a dropped duplicate call."""
        return self.gaps.known_gap_defect

    @property
    def num_corrected_gaps(self) -> int:
        """Gaps of a file with that defect that are shortened by the duplicate, as estimated."""
        return self.gaps.num_correctable_gaps if self.known_gap_defect else 0

    @property
    def num_uncorrected_gaps(self) -> int:
        """Gaps of such a file that are left as recorded, since no latency is."""
        return self.gaps.num_unclear_gaps if self.known_gap_defect else 0


def trace_files(path: Path) -> tuple[Path, ...]:
    """List the trace files at `path`, by name: itself, or those in a directory and below it.

    Leaves out files and directories whose names begin with a dot, files that are read with another
    one, and what Claude Code keeps beside its sessions.

    Raises:
        TraceError: Nothing is there, or no file has a suffix that Holdfast reads.
    """
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise TraceError(
                f"unknown file type; expected one of {', '.join(_SUFFIXES)}", source=str(path)
            )
        return (path,)
    if not path.is_dir():
        raise TraceError("no such file or directory", source=str(path))
    files = tuple(
        file
        for file in sorted(path.rglob("*"))
        if file.name.endswith(_SUFFIXES)
        and not (_is_hidden(file.relative_to(path)) or claude_code.is_aside(file))
        and file.is_file()
    )
    if not files:
        raise TraceError(
            f"the directory has no trace file; expected {', '.join(_SUFFIXES)}", source=str(path)
        )
    companions = {
        companion
        for reader in READERS
        for file in files
        for companion in reader.companions_of(file)
    }
    return tuple(file for file in files if file not in companions)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_sessions(
    *paths: Path,
    seed: int | None = None,
    on_file: Callable[[FileReport], None] | None = None,
    on_skipped: OnSkipped | None = None,
) -> Iterator[Session]:
    """Read sessions one file at a time; a file is opened only when its turn comes.

    The file's suffix and the fields of its first objects tell the format. Sessions of one file are
    built only as they are taken, and block ids are comparable between all of one call. A session
    without an answer is left out and counted in its file's report.

    Args:
        paths: Trace files, or directories of them.
        seed: Shuffles the order of the files, and of the sessions within a file of many; of
            recorded arrivals it chooses the one to begin with. None keeps the order of names and
            lines.
        on_file: Told about each file before its sessions are yielded.
        on_skipped: Told about each part that is left out because it is wrong: a line, a session
            or what is left of a file. None stops the reading at the first.

    Raises:
        TraceError: A path has no trace file; or a file cannot be read or breaks its format, or no
            session at all was answered, and `on_skipped` is None.
    """
    files = [file for path in paths for file in trace_files(path)]
    rng = None if seed is None else random.Random(seed)
    if rng is not None:
        rng.shuffle(files)
    interner = PrefixInterner()
    num_unanswered = num_answered = 0
    for scope, path in enumerate(files, start=1):
        file = TraceFile(str(path), path, on_skipped)
        try:
            reader = _reader(file, path)
            reading = reader.read(file, interner=interner, scope=scope, rng=rng)
            if on_file is not None:
                for report in _reports(path, reader, reading):
                    on_file(report)
            num_unanswered += reading.num_unanswered
            for session in reading.sessions:
                num_answered += 1
                yield session
        except TraceError as error:
            file.refuse(error)
    if num_unanswered and not num_answered and on_skipped is None:
        raise TraceError(
            "holds no answered request to a model", source=", ".join(str(path) for path in paths)
        )


def _reports(path: Path, reader: TraceReader, reading: Reading) -> Iterable[FileReport]:
    yield FileReport(
        path=path,
        sha256=stored_digest(path),
        num_sessions=reading.num_sessions,
        gaps=reading.gaps,
        num_estimated_gaps=reading.num_estimated_gaps,
        format_name=reader.name,
        num_estimated_lengths=reading.num_estimated_lengths,
        num_unanswered=reading.num_unanswered,
    )
    for companion in reading.companions:
        yield FileReport(companion, stored_digest(companion), num_sessions=0)


def _reader(file: TraceFile, path: Path) -> TraceReader:
    kind = next(
        kind
        for ending, kind in _KINDS.items()
        if path.name.endswith(tuple(f"{ending}{compression}" for compression in COMPRESSIONS))
    )
    if kind == "document":
        objects = iter([frozenset(file.document(dict[str, Raw]))])
    elif kind == "table":
        objects = iter([frozenset(column_names(file))])
    else:
        objects = islice(file.fields(), _MAX_PREAMBLE_LINES)
    first: frozenset[str] | None = None
    for fields in objects:
        reader = reader_for(kind, fields)
        if reader is not None:
            return reader
        first = fields if first is None else first
    if first is None:
        raise TraceError("holds no line", source=file.source)
    raise _unknown_layout(file, kind, first)


def _unknown_layout(file: TraceFile, kind: FileKind, fields: frozenset[str]) -> TraceError:
    expected = "; ".join(
        f"{reader.name}: {' or '.join(', '.join(sorted(layout)) for layout in reader.layouts)}"
        for reader in READERS
        if reader.kind == kind
    )
    what, where = ("file", None) if kind == "document" else ("first line", "line 1")
    return TraceError(
        f"unknown layout with the fields {', '.join(sorted(fields)) or '(none)'}",
        source=file.source,
        where=where,
        hint=f"the {what} must have all fields of one of these ({expected})",
    )
