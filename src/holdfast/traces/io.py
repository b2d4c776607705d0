"""The sessions of trace files on disk."""

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
    def name(self) -> str:
        """The file's name, as it can be written."""
        return printable(self.path.name)

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


def read_sessions(
    *paths: Path,
    seed: int | None = None,
    on_file: Callable[[FileReport], None] | None = None,
    on_skipped: OnSkipped | None = None,
    on_unread: OnSkipped | None = None,
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
        on_unread: Told about each of several files that is left out as a whole because something
            in it is wrong and `on_skipped` is None. None stops the reading at the first.
        keeps_text: Whether `Turn.text` is kept, of formats that see it.

    Raises:
        TraceError: A path has no trace file; or, where `on_skipped` is None, a file is wrong that
            may not be left out, or all are, two sessions have one id, a parent is not before its
            sub-agents, or no session at all was answered.
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
    """The files of one reading, each read when its turn comes; arguments as of `read_sessions`."""

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
        """Yield the sessions of all files."""
        for path in self._files:
            yield from self._sessions_of(path)

    def check(self, source: str) -> None:
        """Raises if there was no session at all."""
        if self._num_answered:
            return
        if self._num_unread:
            message = f"none of {self._num_unread} files can be read"
            raise TraceError(message, source=source, hint="--lenient reads what is right of each")
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
        """Read a file, without those of its other parts that are wrong if they may be left out."""
        self._scope += 1
        if self._on_skipped is not None:
            told = self._on_skipped
            file = replace(file, on_skipped=lambda error: told(error.read_as(reader.name)))
        while True:
            try:
                return self._whole_reading(replace(file, repairs=Repairs()), reader)
            except TraceError as error:
                part = Path(error.source)
                if self._on_unread is None or part in (file.content, *file.left_out):
                    raise
                self._leave_out(file, error.read_as(reader.name))
                children = tuple(child for child in file.children if child != part)
                file = replace(file, children=children, left_out=(*file.left_out, part))

    def _whole_reading(self, file: TraceFile, reader: TraceReader) -> Reading:
        scope, rng = self._scope, self._rng
        reading = reader.read(file, interner=self._interner, scope=scope, rng=rng)
        if self._on_unread is not None and reading.num_sessions is None:
            # A file that is read as a stream finds out on the way what is wrong.
            trial = reader.read(file.silently(), interner=PrefixInterner(), scope=scope, rng=None)
            for _ in trial.sessions:
                pass
        _report(Path(file.source), reader, reading, self._on_file, file.repairs)
        return reading


def _other_parts(path: Path, family: Sequence[Path]) -> Iterator[Path]:
    """The files that would have been read with one, where they are traces without it as well."""
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
            sees_text=reader.sees_text,
            repairs=repairs,
        )
    )
    for companion in reading.companions:
        on_file(FileReport(companion, stored_digest(companion), num_sessions=0))
