"""`holdfast traces validate`: checks that sessions can be read and are consistent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from rich.console import Console

from holdfast.cli.load_options import LENIENT
from holdfast.cli.options import JSON_FILE, takes
from holdfast.cli.traces_source import NEGATIVE_READ_AS, PATHS, Skipped, TraceSource
from holdfast.errors import TraceError
from holdfast.report.page import write_whole
from holdfast.traces.io import FileReport
from holdfast.traces.validation import BlockChecks

__all__ = ["ValidateArguments", "validate"]

_SCHEMA = "holdfast.validation/1"
_REMARKS = {
    "num_estimated_gaps": "gaps are estimated",
    "num_corrected_gaps": "gaps contained a dropped duplicate call; its time is estimated and "
    "taken off",
    "num_uncorrected_gaps": "gaps of the same files are left as recorded: no latency is",
    "num_estimated_lengths": "lengths are estimated",
    "num_unanswered": "sessions without an answer left out",
    "num_orphans": "sessions whose parent is missing",
    "num_negative_values": f"negative values {NEGATIVE_READ_AS}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateArguments:
    """The arguments of `holdfast traces validate`.

    Attributes:
        paths: Trace files, and directories of them.
        json_path: File for the counts and problems.
        lenient: Whether all problems are listed, not only the first.
    """

    paths: Annotated[tuple[Path, ...], PATHS]
    json_path: Annotated[
        Path | None,
        JSON_FILE.but(help="Write the counts here; with --lenient also the problems."),
    ]
    lenient: Annotated[bool, LENIENT]


@click.command()
@takes(ValidateArguments)
def validate(options: ValidateArguments) -> None:
    """Check that every session of PATH can be read and is consistent.

    Stops at the first problem, unless it keeps only one file of several from being read; with
    --lenient lists all problems. The exit status is not 0 if there is one.
    """
    console, errors = Console(), Console(stderr=True)
    problems = _Problems(Skipped(errors))
    on_skipped = problems if options.lenient else None
    source = TraceSource(options.paths, errors, on_skipped, on_unread=problems)
    reports: list[FileReport] = []
    source.on_file.append(reports.append)
    checks = BlockChecks()
    num_sessions = num_turns = 0
    with source.sessions() as sessions:
        for session in sessions:
            num_sessions += 1
            num_turns += len(session.turns)
            for problem in checks.problems(session):
                if not options.lenient:
                    raise problem
                problems(problem)
    counts = {name: sum(getattr(report, name) for report in reports) for name in _REMARKS}
    if options.json_path is not None:
        totals = {"num_sessions": num_sessions, "num_turns": num_turns}
        document = _document(reports, totals | counts, problems.found)
        content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        write_whole(options.json_path, content)
    if problems.found:
        raise TraceError(
            f"{len(problems.found)} problems", source=", ".join(str(path) for path in options.paths)
        )
    formats = ", ".join(sorted({report.format_name for report in reports} - {""}))
    console.print(
        f"{len(reports)} files ({formats}), {num_sessions:,} sessions, {num_turns:,} turns: valid",
        highlight=False,
    )
    for name, number in counts.items():
        if number:
            console.print(f"{number:,} {_REMARKS[name]}", highlight=False)


class _Problems:
    """Prints problems as they are found, and collects them."""

    def __init__(self, shown: Skipped) -> None:
        self.found: list[str] = []
        self._shown = shown

    def __call__(self, problem: TraceError) -> None:
        self.found.append(str(problem))
        self._shown(problem)


def _document(
    reports: list[FileReport], counts: dict[str, int], problems: list[str]
) -> dict[str, Any]:
    files = [
        {"name": report.name, "format": report.format_name, "sha256": report.sha256}
        for report in reports
    ]
    return {
        "schema": _SCHEMA,
        "is_valid": not problems,
        "files": files,
        **counts,
        "num_problems": len(problems),
        "problems": problems,
    }
