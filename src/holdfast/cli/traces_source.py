"""Reading of trace files for commands: progress, faulty parts, unreadable files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.cli.options import argument
from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions, trace_files
from holdfast.traces.storage import printable

if TYPE_CHECKING:
    from holdfast.traces.record import Session

__all__ = [
    "NEGATIVE_READ_AS",
    "PATHS",
    "Skipped",
    "TextCount",
    "TraceSource",
    "Unread",
    "print_negative",
]

_MAX_SHOWN = 20

NEGATIVE_READ_AS = "in the files: times are read as 0, counts as not recorded"
"""Follows the number of negative values."""


def print_negative(reports: Iterable[FileReport], errors: Console) -> int:
    """Print how many values below 0 the files have, if any; returns the number."""
    number = sum(report.num_negative_values for report in reports)
    if number:
        errors.print(f"[yellow]{number:,} negative values[/] {NEGATIVE_READ_AS}", highlight=False)
    return number


PATHS: Final = argument(nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
"""The trace files and directories to read."""


@dataclass(slots=True)
class _ErrorPrinter:
    """Prints errors about files, each hint once."""

    errors: Console
    hints: set[str] = field(default_factory=set)

    def print(self, heading: str, error: TraceError) -> None:
        """Print one error after a heading."""
        self.errors.print(f"{heading} {escape(str(error))}", highlight=False, soft_wrap=True)
        if error.hint is not None and error.hint not in self.hints:
            self.hints.add(error.hint)
            self.errors.print(f"hint: {escape(error.hint)}", highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Skipped:
    """Counts the parts of files that are left out, and prints the first ones.

    A part that is found again, in another reading of the same file, counts once.

    Attributes:
        errors: Where they are printed.
        num_skipped: Parts so far.
    """

    errors: Console
    num_skipped: int = 0
    _printer: _ErrorPrinter = field(init=False)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._printer = _ErrorPrinter(self.errors)

    def __call__(self, error: TraceError) -> None:
        """Count a part; print it, if it is among the first."""
        if str(error) in self._seen:
            return
        self._seen.add(str(error))
        self.num_skipped += 1
        if self.num_skipped <= _MAX_SHOWN:
            self._printer.print("[yellow]left out:[/]", error)

    def print_total(self) -> None:
        """Print how many there are, if any."""
        if self.num_skipped:
            self.errors.print(f"[yellow]{self.num_skipped} parts were left out[/]")


@dataclass(slots=True)
class Unread:
    """Collects the files that could not be read while others were, and prints each.

    Attributes:
        errors: Where they are printed.
        found: The error of each file, by the file's path.
    """

    errors: Console
    found: dict[str, TraceError] = field(default_factory=dict)
    _printer: _ErrorPrinter = field(init=False)

    def __post_init__(self) -> None:
        self._printer = _ErrorPrinter(self.errors)

    def __call__(self, error: TraceError) -> None:
        """Add a file; print it, if it is new."""
        if error.source not in self.found:
            self._printer.print("[red]not read:[/]", error)
        self.found[error.source] = error

    @property
    def names(self) -> list[str]:
        """The names of the files, without their directories."""
        return [printable(Path(source).name) for source in self.found]

    def check(self) -> None:
        """Fail if there are any; called once the other files are dealt with.

        Raises:
            TraceError: Some files could not be read. Names the first and counts the others.
        """
        if self.found:
            num = len(self.found)
            files = "this file was" if num == 1 else f"this file and {num - 1} more were"
            raise TraceError(
                f"{files} not read; the figures above are of the other files",
                source=next(iter(self.found)),
            )


@dataclass(slots=True)
class TextCount:
    """Counts the turns whose text was read, and the formats that have none."""

    num_turns: int = 0
    num_with_text: int = 0
    formats_without: set[str] = field(default_factory=set)

    def add_file(self, report: FileReport) -> None:
        """Add a file's format."""
        if report.format_name and not report.has_text:
            self.formats_without.add(report.format_name)

    def counted(self, sessions: Iterable[Session]) -> Iterator[Session]:
        """Yield the sessions unchanged, and count their turns."""
        for session in sessions:
            self.num_turns += len(session.turns)
            self.num_with_text += sum(turn.text is not None for turn in session.turns)
            yield session

    def sentence(self) -> str:
        """The count as a sentence."""
        counted = f"{self.num_with_text:,} of {self.num_turns:,} turns have text"
        if not self.formats_without:
            return counted
        return f"{counted}; the format {', '.join(sorted(self.formats_without))} has no text"


@dataclass(slots=True)
class TraceSource:
    """The sessions at some paths, with a progress bar while they are read.

    Attributes:
        paths: Trace files, and directories of them.
        errors: Where the progress bar is shown.
        on_skipped: Called for each faulty part of a file; None stops at the first one.
        keeps_text: Whether the text of turns is read too.
        on_file: Called for each file before its sessions.
        on_unread: Called for each file that cannot be read while others can; None stops at it.
    """

    paths: tuple[Path, ...]
    errors: Console
    on_skipped: Callable[[TraceError], None] | None
    keeps_text: bool = False
    on_file: list[Callable[[FileReport], None]] = field(default_factory=list)
    on_unread: Callable[[TraceError], None] | None = None

    @contextmanager
    def sessions(self) -> Iterator[Iterator[Session]]:
        """Read all paths once; yields an iterator over their sessions."""
        num_bytes = {file: file.stat().st_size for path in self.paths for file in trace_files(path)}
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[sessions]:,} sessions"),
            TimeElapsedColumn(),
            console=self.errors,
            transient=True,
        ) as progress:
            task = progress.add_task("reading", total=sum(num_bytes.values()), sessions=0)
            reached = 0

            def on_file(report: FileReport) -> None:
                nonlocal reached
                progress.update(task, completed=reached, description=escape(report.path.name))
                reached += num_bytes.get(report.path, 0)
                for listener in self.on_file:
                    listener(report)

            def counted() -> Iterator[Session]:
                sessions = read_sessions(
                    *self.paths,
                    on_file=on_file,
                    on_skipped=self.on_skipped,
                    on_unread=self.on_unread,
                    keeps_text=self.keeps_text,
                )
                for number, session in enumerate(sessions, start=1):
                    progress.update(task, sessions=number)
                    yield session

            yield counted()
