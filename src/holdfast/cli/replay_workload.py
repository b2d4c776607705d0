"""The sessions of `holdfast replay`, and remarks about the files they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from holdfast.cli.load_options import LoadOptions
from holdfast.cli.load_warnings import warn_of_too_few
from holdfast.cli.traces_source import Skipped, Unread, print_negative
from holdfast.errors import ConfigError
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session
from holdfast.traces.selection import Selection
from holdfast.workload.synthetic import iterate_sessions

__all__ = ["ReplayWorkload", "read_workload"]

_SYNTHETIC = "synthetic"
_SYNTHETIC_SESSIONS = 20


@dataclass(slots=True)
class ReplayWorkload:
    """The sessions to replay.

    Attributes:
        sessions: In the order in which they start.
        reports: One for each trace file.
        skipped: Parts of files that were left out.
        unread: Files that could not be read.
    """

    sessions: tuple[Session, ...]
    reports: list[FileReport]
    skipped: Skipped
    unread: Unread

    @property
    def num_turns(self) -> int:
        """Turns of all sessions."""
        return sum(len(session.turns) for session in self.sessions)


def read_workload(load: LoadOptions, errors: Console) -> ReplayWorkload:
    """Read or generate the sessions, and print remarks about them.

    Raises:
        ConfigError: `--traces` has a wrong seed, or no session is left.
        TraceError: A file cannot be read, and is the only one.
    """
    reports: list[FileReport] = []
    skipped, unread = Skipped(errors), Unread(errors)
    seed = _synthetic_seed(load.traces, load.seed)
    source: Iterator[Session]
    if load.traces is None or seed is not None:
        source = iterate_sessions(load.seed if seed is None else seed)
        selection = load.selection(num_sessions=_SYNTHETIC_SESSIONS)
    else:
        source = read_sessions(
            load.traces,
            seed=load.seed,
            on_file=reports.append,
            on_skipped=skipped if load.lenient else None,
            on_unread=unread,
        )
        selection = load.selection()
    with errors.status("Reading sessions"):
        selected = selection.select(source)
    skipped.print_total()
    _print_selection(selected, selection.num_sessions, errors)
    _print_gap_defect(reports, errors)
    print_negative(reports, errors)
    _print_estimated_gaps(reports, errors)
    warn_of_too_few(len(selected.sessions), load.concurrency[0], errors)
    return ReplayWorkload(selected.sessions, reports, skipped, unread)


def _synthetic_seed(traces: Path | None, default: int) -> int | None:
    """The seed of generated sessions; None where `traces` names a file or directory."""
    name, _, text = str(traces).partition(":")
    if name != _SYNTHETIC:
        return None
    if text and not text.isdecimal():
        raise ConfigError(f"--traces is {str(traces)!r}; expected synthetic or synthetic:SEED")
    return int(text) if text else default


def _print_selection(selected: Selection, num_sessions: int | None, errors: Console) -> None:
    num_turns = sum(len(session.turns) for session in selected.sessions)
    errors.print(f"{len(selected.sessions)} sessions, {num_turns} turns", highlight=False)
    if selected.num_outgrown:
        errors.print(f"left out: {selected.num_outgrown} sessions that outgrow the model's context")
    if num_sessions is not None and len(selected.sessions) < num_sessions:
        errors.print(f"[yellow]fewer sessions than the {num_sessions} asked for[/]")


def _print_gap_defect(reports: list[FileReport], errors: Console) -> None:
    defective = [report for report in reports if report.known_gap_defect]
    pooled = sum((report.gaps for report in reports), GapEvidence())
    if not defective and not pooled.known_gap_defect:
        return
    num_corrected = sum(report.num_corrected_gaps for report in reports)
    errors.print(
        f"[bold yellow]known defect:[/] in {len(defective)} of {len(reports)} files the "
        f"recorded gaps contain a dropped duplicate call. {num_corrected:,} gaps are shortened "
        "by the latency of the call it repeated, an estimate; files too small to check are "
        f"left as recorded. ({pooled})",
        highlight=False,
    )


def _print_estimated_gaps(reports: list[FileReport], errors: Console) -> None:
    num_estimated = sum(report.num_estimated_gaps for report in reports)
    if num_estimated:
        errors.print(
            f"[yellow]{num_estimated} gaps are not recorded and were taken from timestamps[/]; "
            "where latencies are missing too, they contain the answer's time"
        )
