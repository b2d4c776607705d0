"""Reads the sessions of trace files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast.errors import TraceError
from holdfast.traces.directory import file_labels, trace_files
from holdfast.traces.file_families import FileFamilies
from holdfast.traces.formats.detection import reader_of
from holdfast.traces.formats.reading import Reading
from holdfast.traces.formats.registry import READERS, TraceReader
from holdfast.traces.formats.repairs import Repairs
from holdfast.traces.formats.trace_file import OnSkipped, TraceFile
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session
from holdfast.traces.storage import printable, stored_digest
from holdfast.traces.validation import SessionLinks

__all__ = ["FileReport", "read_sessions", "trace_files"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """Facts about one file, found while reading it.

    Attributes:
        path: The file.
        sha256: Digest of its bytes as stored, hexadecimal.
        num_sessions: Sessions in the file, sub-agents included; 0 for a file that only adds to
            another one's sessions, None for a file that is read as a stream.
        gaps: Evidence for the known gap defect of WEKA's format; empty for other formats.
        num_estimated_gaps: Gaps missing from the file, taken from timestamps and latencies where
            it has them, else 0.
        format_name: Name of the format; "" for a file that only adds to another one's sessions.
        num_estimated_lengths: Lengths of prompts and answers missing from the file, estimated from
            their text.
        num_unanswered: Sessions left out because none of their requests was answered.
        num_orphans: Sessions whose parent, or whose origin of a fork, is missing.
        has_text: Whether the format can hold message texts.
        repairs: Values that were corrected while reading; complete for a stream only at its end.
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
    has_text: bool = False
    repairs: Repairs = field(default_factory=Repairs)

    @property
    def name(self) -> str:
        """The file's name in printable form."""
        return printable(self.path.name)

    @property
    def num_negative_values(self) -> int:
        """Numbers below 0: times, read as 0, and counts, read as unrecorded."""
        return self.repairs.num_negative

    @property
    def known_gap_defect(self) -> bool:
        """Whether recorded gaps seem to include a dropped duplicate call."""
        return self.gaps.known_gap_defect

    @property
    def num_corrected_gaps(self) -> int:
        """Gaps that are shortened by the estimated duplicate, in a file with that defect."""
        return self.gaps.num_correctable_gaps if self.known_gap_defect else 0

    @property
    def num_uncorrected_gaps(self) -> int:
        """Gaps that stay as recorded for lack of a latency, in a file with that defect."""
        return self.gaps.num_unclear_gaps if self.known_gap_defect else 0


def read_sessions(
    *paths: Path,
    seed: int | None = None,
    on_file: Callable[[FileReport], None] | None = None,
    on_skipped: OnSkipped | None = None,
    on_unread: OnSkipped | None = None,
    keeps_text: bool = False,
) -> Iterator[Session]:
    """Read sessions lazily, one file at a time.

    The file's suffix and the fields of its first objects determine the format. Sessions are built
    only when the iterator reaches them. Block ids are comparable between all sessions of one call.
    A session without an answer is left out and counted. Files of sub-agents are read with their
    main agent's.

    Args:
        paths: Trace files, or directories of them.
        seed: Shuffles the files, and the sessions within a file; of recorded arrivals it chooses
            the first one. None keeps the order of names and lines.
        on_file: Called for each file before its sessions are yielded.
        on_skipped: Called for each malformed part that is left out: a line, a session, a link to
            another session, or the rest of a file. None raises at the first.
        on_unread: Called for each malformed file that is left out as a whole; only with several
            files and while `on_skipped` is None. None raises at the first.
        keeps_text: Whether to fill `Turn.text`, for formats that have it.

    Raises:
        TraceError: A path has no trace file. Where `on_skipped` is None also: a file is malformed
            and may not be left out, all files are malformed, two sessions have one id, a parent
            comes after its sub-agents, or no session was answered.
    """
    files = [file for path in paths for file in trace_files(path)]
    rng = None if seed is None else random.Random(seed)
    if rng is not None:
        rng.shuffle(files)
    files_read = _FilesRead(files, rng, on_file, on_skipped, on_unread, keeps_text)
    yield from files_read.sessions()
    if on_skipped is None:
        files_read.check(source=", ".join(map(str, paths)))


class _FilesRead:
    """The files of one reading, read lazily; arguments as for `read_sessions`."""

    def __init__(
        self,
        files: Sequence[Path],
        rng: random.Random | None,
        on_file: Callable[[FileReport], None] | None,
        on_skipped: OnSkipped | None,
        on_unread: OnSkipped | None,
        keeps_text: bool,
    ) -> None:
        self._files = files
        self._rng = rng
        self._on_file = on_file
        self._on_skipped = on_skipped
        is_alone = len(files) == 1 and not any(_companions(files[0]))
        self._on_unread = None if is_alone or on_skipped is not None else on_unread
        self._keeps_text = keeps_text
        self._interner = PrefixInterner()
        self._families = FileFamilies(files, on_skipped)
        self._labels = file_labels(files)
        self._links = SessionLinks()
        self._scope = self._num_unread = self._num_unanswered = self._num_answered = 0

    def sessions(self) -> Iterator[Session]:
        """Yield the sessions of all files in order."""
        for path in self._files:
            yield from self._sessions_of(path)

    def check(self, source: str) -> None:
        """Raise unless there was at least one session."""
        if self._num_answered:
            return
        if self._num_unread:
            message = f"none of {self._num_unread} files can be read"
            raise TraceError(message, source=source, hint="--lenient reads the valid parts of each")
        if self._num_unanswered:
            raise TraceError("holds no answered request to a model", source=source)

    def _sessions_of(self, path: Path) -> Iterator[Session]:
        label = self._labels.get(path, "")
        file = TraceFile(str(path), path, self._on_skipped, self._keeps_text, own_label=label)
        family: tuple[Path, ...] | None = ()
        try:
            reader = reader_of(file, path)
            family = self._families.of(path, reader)
            if family is None:
                return
            with _read_as(reader.name):
                reading = self._reading(replace(file, children=family), reader)
        except TraceError as error:
            self._leave_out(file, error)
            for part in _other_parts(path, family or ()):
                yield from self._sessions_of(part)
            return
        self._num_unanswered += reading.num_unanswered
        self._links.begin_file()
        try:
            for session in _named_sessions(reading, reader):
                kept = self._links.kept(session, file, is_ordered=self._rng is None)
                if kept is not None:
                    self._num_answered += 1
                    yield kept
        except TraceError as error:
            file.refuse(error)

    def _leave_out(self, file: TraceFile, error: TraceError) -> None:
        if self._on_unread is None:
            file.refuse(error)
        else:
            self._num_unread += 1
            self._on_unread(error)

    def _reading(self, file: TraceFile, reader: TraceReader) -> Reading:
        """Read a file and its related files, without malformed ones that may be left out."""
        self._scope += 1
        if self._on_skipped is not None:
            told = self._on_skipped
            file = replace(file, on_skipped=lambda error: told(error.read_as(reader.name)))
        while True:
            try:
                return self._whole_reading(replace(file, repairs=Repairs()), reader)
            except TraceError as error:
                part = Path(error.source)
                if self._on_unread is None or part in (file.content, *file.unreadable):
                    raise
                self._leave_out(file, error.read_as(reader.name))
                children = tuple(child for child in file.children if child != part)
                file = replace(file, children=children, unreadable=(*file.unreadable, part))

    def _whole_reading(self, file: TraceFile, reader: TraceReader) -> Reading:
        scope, rng = self._scope, self._rng
        reading = reader.read(file, interner=self._interner, scope=scope, rng=rng)
        if self._on_unread is not None and reading.num_sessions is None:
            # A stream reports errors only while it is read: read it once without yielding.
            trial = reader.read(
                file.without_reports(), interner=PrefixInterner(), scope=scope, rng=None
            )
            for _ in trial.sessions:
                pass
        _report(Path(file.source), reader, reading, self._on_file, file.repairs)
        return reading


def _other_parts(path: Path, family: Sequence[Path]) -> Iterator[Path]:
    """The related files that are traces of their own."""
    for part in dict.fromkeys((*family, *_companions(path))):
        with suppress(TraceError):
            reader_of(TraceFile(str(part), part), part)
            yield part


def _companions(path: Path) -> Iterator[Path]:
    for reader in READERS:
        yield from reader.companions_of(path)


def _named_sessions(reading: Reading, reader: TraceReader) -> Iterator[Session]:
    with _read_as(reader.name):
        yield from reading.sessions


@contextmanager
def _read_as(format_name: str) -> Iterator[None]:
    try:
        yield
    except TraceError as error:
        raise error.read_as(format_name) from None


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
            has_text=reader.has_text,
            repairs=repairs,
        )
    )
    for companion in reading.companions:
        on_file(FileReport(companion, stored_digest(companion), num_sessions=0))
