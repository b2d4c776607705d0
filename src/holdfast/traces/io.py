"""Trace files on disk: which they are, how they are compressed, what they hold."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import TraceError
from holdfast.traces.formats.weka import read_weka
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session

__all__ = ["FileReport", "read_sessions", "trace_files"]

_SUFFIXES = (".json", ".json.xz", ".json.gz")


@dataclass(frozen=True, slots=True)
class FileReport:
    """What reading one file brought to light.

    Attributes:
        path: The file.
        sha256: Digest of its bytes as stored, hexadecimal.
        num_sessions: Sessions it holds, sub-agents included.
        gaps: Evidence for the known gap defect of the format.
        num_estimated_gaps: Gaps the file leaves out, taken from timestamps and latencies.
    """

    path: Path
    sha256: str
    num_sessions: int
    gaps: GapEvidence
    num_estimated_gaps: int

    @property
    def known_gap_defect(self) -> bool:
        """Whether recorded gaps look too long by a dropped duplicate call."""
        return self.gaps.known_gap_defect


def trace_files(path: Path) -> tuple[Path, ...]:
    """List the trace files at `path`, by name: itself, or those directly in a directory.

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
    files = tuple(sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES)))
    if not files:
        raise TraceError(
            f"the directory has no trace file; expected {', '.join(_SUFFIXES)}", source=str(path)
        )
    return files


def read_sessions(
    path: Path,
    *,
    seed: int | None = None,
    on_file: Callable[[FileReport], None] | None = None,
) -> Iterator[Session]:
    """Read sessions one file at a time; a file is opened only when its turn comes.

    Args:
        path: A trace file, or a directory of them.
        seed: Shuffles the order of the files; None keeps the order of their names.
        on_file: Told about each file before its sessions are yielded.

    Raises:
        TraceError: A file cannot be read or breaks its format.
    """
    files = list(trace_files(path))
    if seed is not None:
        random.Random(seed).shuffle(files)
    interner = PrefixInterner()
    for scope, file in enumerate(files, start=1):
        stored = _stored_bytes(file)
        reading = read_weka(
            _decompressed(file, stored), source=str(file), interner=interner, local_scope=scope
        )
        if on_file is not None:
            on_file(
                FileReport(
                    path=file,
                    sha256=hashlib.sha256(stored).hexdigest(),
                    num_sessions=len(reading.sessions),
                    gaps=reading.gaps,
                    num_estimated_gaps=reading.num_estimated_gaps,
                )
            )
        yield from reading.sessions


def _stored_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TraceError(f"cannot be read: {error.strerror or error}", source=str(file)) from error


def _decompressed(file: Path, stored: bytes) -> bytes:
    try:
        if file.suffix == ".xz":
            return lzma.decompress(stored)
        if file.suffix == ".gz":
            return gzip.decompress(stored)
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(
            f"damaged {file.suffix[1:]} data: {error}",
            source=str(file),
            hint="fetch the file again",
        ) from error
    return stored
