"""`holdfast traces`: look at trace files, check them, turn them into others."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from holdfast.cli.traces_fit import fit
from holdfast.cli.traces_generate import generate
from holdfast.cli.traces_source import LENIENT, PATHS, Skipped, TextCount, TraceSource
from holdfast.cli.traces_study import study
from holdfast.cli.traces_table import losses_table, statistics_tables
from holdfast.errors import TraceError
from holdfast.report.page import write_whole
from holdfast.traces.conversion import write_sessions
from holdfast.traces.io import FileReport
from holdfast.traces.statistics import Statistics
from holdfast.traces.validation import SessionChecks
from holdfast.traces.writers.registry import WRITERS

__all__ = ["traces"]


@click.group()
def traces() -> None:
    """Look at recorded sessions, check them, study them, and write them in other formats.

    PATH is a trace file or a directory of them; the format is found out. See docs/traces.md.
    """


@traces.command()
@PATHS
@LENIENT
def validate(paths: tuple[Path, ...], lenient: bool) -> None:
    """Check that every session of PATH can be read and keeps its promises.

    Stops at the first problem; with --lenient lists them all. The exit status is not 0 if there is
    one.
    """
    console, errors = Console(), Console(stderr=True)
    problems = Skipped(errors)
    source = TraceSource(paths, errors, problems if lenient else None)
    reports: list[FileReport] = []
    source.on_file.append(reports.append)
    checks = SessionChecks()
    num_sessions = num_turns = 0
    with source.sessions() as sessions:
        for session in sessions:
            num_sessions += 1
            num_turns += len(session.turns)
            for problem in checks.problems(session):
                if not lenient:
                    raise problem
                problems(problem)
    if problems.num_skipped:
        raise TraceError(
            f"{problems.num_skipped} problems", source=", ".join(str(path) for path in paths)
        )
    formats = ", ".join(sorted({report.format_name for report in reports} - {""}))
    console.print(
        f"{len(reports)} files ({formats}), {num_sessions:,} sessions, {num_turns:,} turns: valid",
        highlight=False,
    )
    for number, what in (
        (sum(report.num_estimated_gaps for report in reports), "gaps are estimated"),
        (
            sum(report.num_corrected_gaps for report in reports),
            "gaps contained a dropped duplicate call; its time is estimated and taken off",
        ),
        (
            sum(report.num_uncorrected_gaps for report in reports),
            "gaps of the same files are left as recorded: no latency is",
        ),
        (sum(report.num_estimated_lengths for report in reports), "lengths are estimated"),
        (sum(report.num_unanswered for report in reports), "sessions without an answer left out"),
        (sum(report.num_orphans for report in reports), "sessions whose parent is not there"),
    ):
        if number:
            console.print(f"{number:,} {what}", highlight=False)


@traces.command()
@PATHS
@click.option("--to", "format_name", required=True, type=click.Choice(list(WRITERS)))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A file that ends in .jsonl, and .gz, .xz or .zst where it is to be compressed; for weka "
    "also a new directory.",
)
@click.option(
    "--block-size",
    "block_size_tokens",
    type=click.IntRange(min=1),
    help="Tokens in a block, for mooncake and agentic-mooncake.  [default: 512; the trace's own]",
)
@click.option(
    "--keep-text",
    "keeps_text",
    is_flag=True,
    help="Keep what was said, where PATH has it; only the format holdfast holds it.",
)
@LENIENT
def convert(
    paths: tuple[Path, ...],
    format_name: str,
    output: Path,
    block_size_tokens: int | None,
    keeps_text: bool,
    lenient: bool,
) -> None:
    """Write the sessions of PATH in another format, and say what it cannot hold.

    The output is there whole or not at all.
    """
    console, errors = Console(), Console(stderr=True)
    skipped = Skipped(errors)
    source = TraceSource(paths, errors, skipped if lenient else None, keeps_text)
    text = TextCount()
    source.on_file.append(text.add_file)
    with source.sessions() as sessions:
        losses = write_sessions(text.counted(sessions), output, format_name, block_size_tokens)
    skipped.say()
    console.print(f"wrote {escape(str(output))}", highlight=False, soft_wrap=True)
    if keeps_text:
        console.print(text.sentence(), highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))


@traces.command()
@PATHS
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all figures here.",
)
@LENIENT
def stats(paths: tuple[Path, ...], json_path: Path | None, lenient: bool) -> None:
    """Show what PATH holds: sessions, turns, tokens, gaps and reuse."""
    console, errors = Console(), Console(stderr=True)
    skipped = Skipped(errors)
    source = TraceSource(paths, errors, skipped if lenient else None)
    statistics = Statistics()
    source.on_file.append(statistics.add_file)
    with source.sessions() as sessions:
        for session in sessions:
            statistics.add(session)
    skipped.say()
    document = statistics.summary(num_skipped=skipped.num_skipped)
    for table in statistics_tables(document):
        console.print(table)
    if json_path is not None:
        write_whole(json_path, document.to_json())


traces.add_command(fit)
traces.add_command(generate)
traces.add_command(study)
