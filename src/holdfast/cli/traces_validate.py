"""`holdfast traces validate`: whether sessions can be read and keep their promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from holdfast.cli.traces_source import LENIENT, NEGATIVE_READ_AS, PATHS, Skipped, TraceSource
from holdfast.errors import TraceError
from holdfast.report.page import write_whole
from holdfast.traces.io import FileReport
from holdfast.traces.validation import BlockChecks

__all__ = ["validate"]

_SCHEMA = "holdfast.validation/1"
_SAID = {
    "num_estimated_gaps": "gaps are estimated",
    "num_corrected_gaps": "gaps contained a dropped duplicate call; its time is estimated and "
    "taken off",
    "num_uncorrected_gaps": "gaps of the same files are left as recorded: no latency is",
    "num_estimated_lengths": "lengths are estimated",
    "num_unanswered": "sessions without an answer left out",
    "num_orphans": "sessions whose parent is not there",
    "num_negative_values": f"negative values {NEGATIVE_READ_AS}",
}


@click.command()
@PATHS
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was found here; with --lenient also where there are problems.",
)
@LENIENT
def validate(paths: tuple[Path, ...], json_path: Path | None, lenient: bool) -> None:
    """Check that every session of PATH can be read and keeps its promises.

    Stops at the first problem, but for one that keeps a file of several from being read; with
    --lenient lists them all. The exit status is not 0 if there is one.
    """
    console, errors = Console(), Console(stderr=True)
    problems = _Problems(Skipped(errors))
    on_skipped = problems if lenient else None
    source = TraceSource(paths, errors, on_skipped, on_unread=problems)
    reports: list[FileReport] = []
    source.on_file.append(reports.append)
    checks = BlockChecks()
    num_sessions = num_turns = 0
    with source.sessions() as sessions:
        for session in sessions:
            num_sessions += 1
            num_turns += len(session.turns)
            for problem in checks.problems(session):
                if not lenient:
                    raise problem
                problems(problem)
    counts = {name: sum(getattr(report, name) for report in reports) for name in _SAID}
    if json_path is not None:
        totals = {"num_sessions": num_sessions, "num_turns": num_turns}
        document = _document(reports, totals | counts, problems.found)
        write_whole(json_path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    if problems.found:
        raise TraceError(
            f"{len(problems.found)} problems", source=", ".join(str(path) for path in paths)
        )
    formats = ", ".join(sorted({report.format_name for report in reports} - {""}))
    console.print(
        f"{len(reports)} files ({formats}), {num_sessions:,} sessions, {num_turns:,} turns: valid",
        highlight=False,
    )
    for name, number in counts.items():
        if number:
            console.print(f"{number:,} {_SAID[name]}", highlight=False)


class _Problems:
    """Shows problems as they are found, and keeps them."""

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
