"""What reading a file of many sessions yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.traces.gaps import GapEvidence
from holdfast.traces.record import Session

__all__ = ["FileLinks", "Reading"]


@dataclass(frozen=True, slots=True)
class FileLinks:
    """What a file says about which files belong together, in names that all of them use.

    Attributes:
        name: What it is called.
        parent: The file that it is read with, where that is there; None for a main agent's.
        children: Files that are read with it, where they are there.
        converted_id: The session that it may be a conversion of, "" where it does not say which;
            None for a recording.
    """

    name: str
    parent: str | None = None
    children: tuple[str, ...] = ()
    converted_id: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The sessions of one file, checked but not yet built.

    Attributes:
        num_sessions: How many there are, sub-agents included; None for a file that is read as a
            stream.
        num_estimated_gaps: Gaps that the file leaves out, taken from timestamps where it has
            them, else 0.
        sessions: Builds each as it is taken, so that those nobody takes cost little; once only.
        gaps: Evidence for the known gap defect of WEKA's format; empty for other formats.
        companions: Other files that were read with this one.
        num_estimated_lengths: Lengths of prompts and answers that the file leaves out, estimated
            from the length of their text.
        num_unanswered: Sessions that are left out because no request of theirs was answered.
        num_orphans: Sessions that name a parent, or one they were forked from, that is not there.
    """

    num_sessions: int | None
    num_estimated_gaps: int
    sessions: Iterator[Session]
    gaps: GapEvidence = field(default_factory=GapEvidence)
    companions: tuple[Path, ...] = ()
    num_estimated_lengths: int = 0
    num_unanswered: int = 0
    num_orphans: int = 0
