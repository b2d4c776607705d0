"""The results of a reader: sessions, and links between files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.traces.gaps import GapEvidence
from holdfast.traces.record import Session

__all__ = ["FileLinks", "Reading"]


@dataclass(frozen=True, slots=True)
class FileLinks:
    """A file's name and its links to other files, in names that the format uses.

    Attributes:
        name: The file's own name.
        parent: The file that reads this one, if that exists; None for a main agent's.
        children: Files that this one reads, if they exist.
        converted_id: The session that it may be converted from, "" if not recorded; None for a
            recording.
    """

    name: str
    parent: str | None = None
    children: tuple[str, ...] = ()
    converted_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The sessions of one file, checked but not yet built.

    Attributes:
        num_sessions: Sessions, sub-agents included; None for a file read as a stream.
        num_estimated_gaps: Gaps that are not recorded; estimated from timestamps, else 0.
        sessions: Builds each session when iterated; once only.
        gaps: Evidence for the known gap defect of WEKA's format; empty for other formats.
        companions: Other files that were read with this one.
        num_estimated_lengths: Lengths of prompts and answers that are not recorded; estimated from
            the length of their text.
        num_unanswered: Sessions dropped because they have no answered request.
        num_orphans: Sessions with a missing parent or origin.
    """

    num_sessions: int | None
    num_estimated_gaps: int
    sessions: Iterator[Session]
    gaps: GapEvidence = field(default_factory=GapEvidence)
    companions: tuple[Path, ...] = ()
    num_estimated_lengths: int = 0
    num_unanswered: int = 0
    num_orphans: int = 0
