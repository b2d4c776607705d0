"""Trace files on disk: which they are, what layout they have, and their sessions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from msgspec import Raw

from holdfast.errors import TraceError
from holdfast.traces.formats import opencode
from holdfast.traces.formats.reading import Kin, Reading
from holdfast.traces.formats.registry import (
    READERS,
    FileKind,
    TraceReader,
    closest_layout,
    reader_for,
)
from holdfast.traces.formats.repairs import Repairs
from holdfast.traces.formats.table_lines import column_names
from holdfast.traces.formats.trace_file import MAX_PREAMBLE_LINES, OnSkipped, TraceFile
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.harbor import Conversions, HarborFiles
from holdfast.traces.kinship import Kinship
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session
from holdfast.traces.storage import COMPRESSIONS, stored_digest
from holdfast.traces.validation import SessionLinks

__all__ = ["FileReport", "read_sessions", "trace_files"]

_KINDS: dict[str, FileKind] = {".json": "document", ".jsonl": "lines", ".csv": "table"}
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
        num_orphans: Sessions whose parent, or the one they were forked from, is not there.
        sees_text: Whether its format can hold what was said.
        repairs: What was read as something else than what the file has; of a file that is read as
            a stream only once that has ended.
    """

    path: Path
    sha256: str
    num_sessions: int | None
    gaps: GapEvidence = field(default_factory=GapEvidence)
    num_estimated_gaps: int = 0
    format_name: str = ""
    num_estimated_lengths: int = 0
    num_unanswered: int = 0
    num_orphans: int = 0
    sees_text: bool = False
    repairs: Repairs = field(default_factory=Repairs)

    @property
    def num_negative_values(self) -> int:
        """Numbers below 0: times, read as 0, and counts, read as not recorded."""
        return self.repairs.num_negative

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


class _UnknownLayoutError(TraceError):
    """A file is of no format that is read."""


def trace_files(path: Path) -> tuple[Path, ...]:
    """List the trace files at `path`, by name: itself, or those in a directory and below it.

    Leaves out files and directories whose names begin with a dot, files that are read with another
    one, and what clients and Harbor keep beside sessions.

    Raises:
        TraceError: Nothing is there, or no file has a suffix that Holdfast reads.
    """
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise TraceError(
                f"unknown file type; expected one of {', '.join(_SUFFIXES)}",
                source=str(path),
                hint=opencode.hint_for(path),
            )
        return (path,)
    if not path.is_dir():
        raise TraceError("no such file or directory", source=str(path))
    harbor = HarborFiles()
    files = tuple(
        file
        for file in sorted(path.rglob("*"))
        if file.name.endswith(_SUFFIXES)
        and not (
            _is_hidden(file.relative_to(path)) or any(reader.is_aside(file) for reader in READERS)
        )
        and file.is_file()
        and not _is_harbors(file, harbor)
    )
    if not files:
        raise TraceError(
            f"the directory has no trace file; expected {', '.join(_SUFFIXES)}",
            source=str(path),
            hint=opencode.hint_for(path),
        )
    companions = {
        companion
        for reader in READERS
        for file in files
        for companion in reader.companions_of(file)
    }
    return tuple(file for file in files if file not in companions)


def _is_harbors(path: Path, harbor: HarborFiles) -> bool:
    """Whether Harbor keeps a file about a job, or an agent beside what it recorded in one."""
    if harbor.is_own(path):
        return True
    return harbor.agent_directory(path) is not None and _has_unknown_layout(path)


def _has_unknown_layout(path: Path) -> bool:
    try:
        _reader(TraceFile(str(path), path), path)
    except _UnknownLayoutError:
        return True
    except TraceError:
        # Told when the file's turn comes.
        return False
    return False


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_sessions(
    *paths: Path,
    seed: int | None = None,
    on_file: Callable[[FileReport], None] | None = None,
    on_skipped: OnSkipped | None = None,
    keeps_text: bool = False,
) -> Iterator[Session]:
    """Read sessions one file at a time; a file is read only when its turn comes.

    The file's suffix and the fields of its first objects tell the format. Sessions of one file are
    built only as they are taken, and block ids are comparable between all of one call. A session
    without an answer is left out and counted. Files of sub-agents are read with their main agent's.

    Args:
        paths: Trace files, or directories of them.
        seed: Shuffles the order of the files, and of the sessions within a file of many; of
            recorded arrivals it chooses the one to begin with. None keeps the order of names and
            lines.
        on_file: Told about each file before its sessions are yielded.
        on_skipped: Told about each part that is left out because it is wrong: a line, a session,
            a link to another one, or what is left of a file. None stops the reading at the first.
        keeps_text: Whether `Turn.text` is kept, of formats that see it.

    Raises:
        TraceError: A path has no trace file; or a file cannot be read or breaks its format, two
            sessions have one id, a parent is not before its sub-agents, or no session at all was
            answered, and `on_skipped` is None.
    """
    files = [file for path in paths for file in trace_files(path)]
    rng = None if seed is None else random.Random(seed)
    if rng is not None:
        rng.shuffle(files)
    interner = PrefixInterner()
    families = _Families(files, on_skipped)
    labels = _labels(files)
    links = SessionLinks()
    num_unanswered = num_answered = 0
    for scope, path in enumerate(files, start=1):
        file = TraceFile(str(path), path, on_skipped, keeps_text, own_label=labels[path])
        try:
            reader = _reader(file, path)
            if (family := families.of(path, reader)) is None:
                continue
            file = replace(file, children=family)
            reading = reader.read(file, interner=interner, scope=scope, rng=rng)
            _report(path, reader, reading, on_file, file.repairs)
            num_unanswered += reading.num_unanswered
            links.begin_file()
            for session in reading.sessions:
                kept = links.kept(session, file, is_ordered=seed is None)
                if kept is not None:
                    num_answered += 1
                    yield kept
        except TraceError as error:
            file.refuse(error)
    if num_unanswered and not num_answered and on_skipped is None:
        raise TraceError("holds no answered request to a model", source=", ".join(map(str, paths)))


def _labels(files: Sequence[Path]) -> dict[Path, str]:
    """What to call each file: its name, behind as many directories as tell it from others; pure."""
    labels: dict[Path, str] = {}
    waiting = set(files)
    depth = 1
    while waiting:
        called = {
            path: "/".join((*path.parts[-depth:-1], path.name.partition(".")[0]))
            for path in waiting
        }
        num_called = Counter(called.values())
        labels |= {
            path: name
            for path, name in called.items()
            if num_called[name] == 1 or depth >= len(path.parts)
        }
        waiting -= labels.keys()
        depth += 1
    return labels


class _Families:
    """The kinship of the files of each format, which are looked into when it is asked for."""

    def __init__(self, files: Sequence[Path], on_skipped: OnSkipped | None) -> None:
        # In the order of names, so that no seed decides which of two of one name is the first.
        self._files = sorted(files)
        self._on_skipped = on_skipped
        self._of: dict[str, Kinship] = {}
        self._converted: dict[Path, str] = {}
        self._conversions = Conversions(self._files, HarborFiles(), self._is_recording)

    def of(self, path: Path, reader: TraceReader) -> tuple[Path, ...] | None:
        """The files that are read with one.

        None for one that is read with another, or whose session is there as recorded.
        """
        if reader.name not in self._of:
            kin = dict(self._kin(reader))
            self._of[reader.name] = Kinship(kin)
            self._converted.update(
                (at, one.converted_id) for at, one in kin.items() if one.converted_id is not None
            )
        kinship = self._of[reader.name]
        converted_id = self._converted.get(path)
        if converted_id is not None and self._conversions.is_recorded(path, converted_id):
            return None
        return None if kinship.is_child(path) else kinship.descendants(path)

    def _is_recording(self, path: Path) -> bool:
        try:
            reader = _reader(TraceFile(str(path), path), path)
        except TraceError:
            return False
        return reader.sees_text and not reader.is_conversion

    def _kin(self, reader: TraceReader) -> Iterator[tuple[Path, Kin]]:
        if all(one.kin_of is None for one in READERS if one.name == reader.name):
            return
        for path in self._files:
            file = TraceFile(str(path), path, self._on_skipped).silently()
            try:
                own = _reader(file, path)
                kin = own.kin_of(file) if own.kin_of and own.name == reader.name else None
            except TraceError:
                # Told when the file's turn comes.
                continue
            if kin is not None:
                yield path, kin


def _report(
    path: Path,
    reader: TraceReader,
    reading: Reading,
    on_file: Callable[[FileReport], None] | None,
    repairs: Repairs,
) -> None:
    if on_file is None:
        return
    on_file(
        FileReport(
            path=path,
            sha256=stored_digest(path),
            num_sessions=reading.num_sessions,
            gaps=reading.gaps,
            num_estimated_gaps=reading.num_estimated_gaps,
            format_name=reader.name,
            num_estimated_lengths=reading.num_estimated_lengths,
            num_unanswered=reading.num_unanswered,
            num_orphans=reading.num_orphans,
            sees_text=reader.sees_text,
            repairs=repairs,
        )
    )
    for companion in reading.companions:
        on_file(FileReport(companion, stored_digest(companion), num_sessions=0))


def _reader(file: TraceFile, path: Path) -> TraceReader:
    kind = next(
        kind
        for ending, kind in _KINDS.items()
        if path.name.endswith(tuple(f"{ending}{compression}" for compression in COMPRESSIONS))
    )
    if kind == "document":
        objects = iter([file.document(dict[str, Raw])])
    elif kind == "table":
        objects = iter([dict.fromkeys(column_names(file), Raw(b"null"))])
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
    return _UnknownLayoutError(
        f"unknown layout with the fields {', '.join(sorted(record)) or '(none)'}",
        source=file.source,
        where=None if kind == "document" else "line 1",
        hint=hint,
    )
