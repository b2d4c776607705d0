"""What the commands of `holdfast traces` read: their arguments, progress and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions, trace_files
from holdfast.traces.storage import printable

if TYPE_CHECKING:
    from holdfast.traces.record import Session

__all__ = [
    "LENIENT",
    "NEGATIVE_READ_AS",
    "PATHS",
    "Skipped",
    "TextCount",
    "TraceSource",
    "Unread",
    "say_negative",
]

_MAX_SHOWN = 20

NEGATIVE_READ_AS = "in the files: times are read as 0, counts as not recorded"
"""What is said behind their number."""


def say_negative(reports: Iterable[FileReport], errors: Console) -> int:
    """Tell how many values below 0 there were in some files, if any; returns it."""
    number = sum(report.num_negative_values for report in reports)
    if number:
        errors.print(f"[yellow]{number:,} negative values[/] {NEGATIVE_READ_AS}", highlight=False)
    return number


PATHS = click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path)
)
LENIENT = click.option(
    "--lenient", is_flag=True, help="Leave out what is wrong and count it, instead of stopping."
)


@dataclass(slots=True)
class _Told:
    """Shows errors about files, each hint once."""

    errors: Console
    hints: set[str] = field(default_factory=set)

    def show(self, heading: str, error: TraceError) -> None:
        self.errors.print(f"{heading} {escape(str(error))}", highlight=False, soft_wrap=True)
        if error.hint is not None and error.hint not in self.hints:
            self.hints.add(error.hint)
            self.errors.print(f"hint: {escape(error.hint)}", highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Skipped:
    """Counts the parts of files that are left out, and shows the first ones.

    One that is told again, by another reading of the same files, counts once.
    """

    errors: Console
    num_skipped: int = 0
    _told: _Told = field(init=False)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._told = _Told(self.errors)

    def __call__(self, error: TraceError) -> None:
        """Count one; show it, if it is among the first."""
        if str(error) in self._seen:
            return
        self._seen.add(str(error))
        self.num_skipped += 1
        if self.num_skipped <= _MAX_SHOWN:
            self._told.show("[yellow]left out:[/]", error)

    def say(self) -> None:
        """Tell how many there were, if any."""
        if self.num_skipped:
            self.errors.print(f"[yellow]{self.num_skipped} parts were left out[/]")


@dataclass(slots=True)
class Unread:
    """The files that could not be read while others were; shows each as it is found."""

    errors: Console
    found: dict[str, TraceError] = field(default_factory=dict)
    _told: _Told = field(init=False)

    def __post_init__(self) -> None:
        self._told = _Told(self.errors)

    def __call__(self, error: TraceError) -> None:
        """Note one and show it."""
        if error.source not in self.found:
            self._told.show("[red]not read:[/]", error)
        self.found[error.source] = error

    @property
    def names(self) -> list[str]:
        """The names of the files, without their directories."""
        return [printable(Path(source).name) for source in self.found]

    def check(self) -> None:
        """Raise if there were any, once all is done that the others allow.

        Raises:
            TraceError: Names the first and says how many.
        """
        if self.found:
            num = len(self.found)
            what = "this file was" if num == 1 else f"this file and {num - 1} more were"
            raise TraceError(
                f"{what} not read; what is shown is of the others", source=next(iter(self.found))
            )


@dataclass(slots=True)
class TextCount:
    """Counts the turns whose text was read, and the formats that have none."""

    num_turns: int = 0
    num_with_text: int = 0
    formats_without: set[str] = field(default_factory=set)

    def add_file(self, report: FileReport) -> None:
        """Note a file's format."""
        if report.format_name and not report.sees_text:
            self.formats_without.add(report.format_name)

    def counted(self, sessions: Iterable[Session]) -> Iterator[Session]:
        """Yield the sessions as they are, and count their turns."""
        for session in sessions:
            self.num_turns += len(session.turns)
            self.num_with_text += sum(turn.text is not None for turn in session.turns)
            yield session

    def sentence(self) -> str:
        """Say what there was."""
        said = f"{self.num_with_text:,} of {self.num_turns:,} turns have text"
        if not self.formats_without:
            return said
        return f"{said}; no text is in the format {', '.join(sorted(self.formats_without))}"


@dataclass(slots=True)
class TraceSource:
    """The sessions at some paths, with a progress bar on stderr while they are read."""

    paths: tuple[Path, ...]
    errors: Console
    on_skipped: Callable[[TraceError], None] | None
    keeps_text: bool = False
    on_file: list[Callable[[FileReport], None]] = field(default_factory=list)
    on_unread: Callable[[TraceError], None] | None = None

    @contextmanager
    def sessions(self) -> Iterator[Iterator[Session]]:
        """Yield the sessions of one reading of all paths."""
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
                for told in self.on_file:
                    told(report)

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
