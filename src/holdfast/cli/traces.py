"""`holdfast traces`: look at trace files, check them, turn them into others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from holdfast.cli.traces_fit import fit
from holdfast.cli.traces_generate import generate
from holdfast.cli.traces_source import (
    LENIENT,
    PATHS,
    Skipped,
    TextCount,
    TraceSource,
    Unread,
    say_negative,
)
from holdfast.cli.traces_study import study
from holdfast.cli.traces_table import losses_table, statistics_tables
from holdfast.cli.traces_validate import validate
from holdfast.report.page import write_whole
from holdfast.traces.conversion import write_sessions
from holdfast.traces.io import FileReport
from holdfast.traces.writers.registry import WRITERS
from holdfast.workload.statistics import Statistics

__all__ = ["traces"]

_CONVERSION_SCHEMA = "holdfast.conversion/1"


@click.group()
def traces() -> None:
    """Look at recorded sessions, check them, study them, and write them in other formats.

    PATH is a trace file or a directory of them; the format is found out. See docs/traces.md.
    """


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
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write how much was converted, and what was lost, here.",
)
@LENIENT
def convert(
    paths: tuple[Path, ...],
    format_name: str,
    output: Path,
    block_size_tokens: int | None,
    keeps_text: bool,
    json_path: Path | None,
    lenient: bool,
) -> None:
    """Write the sessions of PATH in another format, and say what it cannot hold.

    The output is there whole or not at all.
    """
    console, errors = Console(), Console(stderr=True)
    skipped, unread = Skipped(errors), Unread(errors)
    source = TraceSource(paths, errors, skipped if lenient else None, keeps_text, on_unread=unread)
    text = TextCount()
    reports: list[FileReport] = []
    source.on_file += [text.add_file, reports.append]
    with source.sessions() as sessions:
        losses = write_sessions(text.counted(sessions), output, format_name, block_size_tokens)
    skipped.say()
    num_negative = say_negative(reports, errors)
    if json_path is not None:
        counts = {"num_turns": text.num_turns, "num_turns_with_text": text.num_with_text}
        counts["num_skipped"] = skipped.num_skipped
        counts["num_unread_files"] = len(unread.found)
        counts["num_negative_values"] = num_negative
        document: dict[str, Any] = {"schema": _CONVERSION_SCHEMA, "format": format_name, **counts}
        document["losses"] = dict(losses)
        write_whole(json_path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    console.print(f"wrote {escape(str(output))}", highlight=False, soft_wrap=True)
    if keeps_text:
        console.print(text.sentence(), highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))
    unread.check()


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
    skipped, unread = Skipped(errors), Unread(errors)
    source = TraceSource(paths, errors, skipped if lenient else None, on_unread=unread)
    statistics = Statistics()
    source.on_file.append(statistics.add_file)
    with source.sessions() as sessions:
        for session in sessions:
            statistics.add(session)
    skipped.say()
    document = statistics.summary(num_skipped=skipped.num_skipped, unread_files=unread.names)
    for table in statistics_tables(document):
        console.print(table)
    if json_path is not None:
        write_whole(json_path, document.to_json())
    unread.check()


traces.add_command(fit)
traces.add_command(generate)
traces.add_command(study)
traces.add_command(validate)
