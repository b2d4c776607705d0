"""`holdfast traces`: look at trace files, check them, study them and convert them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from holdfast.cli.load_options import LENIENT
from holdfast.cli.options import JSON_FILE, option, takes
from holdfast.cli.traces_fit import fit
from holdfast.cli.traces_generate import OUTPUT, TO_FORMAT, generate
from holdfast.cli.traces_source import (
    PATHS,
    Skipped,
    TextCount,
    TraceSource,
    Unread,
    print_negative,
)
from holdfast.cli.traces_study import study
from holdfast.cli.traces_table import losses_table, statistics_tables
from holdfast.cli.traces_validate import validate
from holdfast.report.page import write_whole
from holdfast.traces.conversion import write_sessions
from holdfast.traces.io import FileReport
from holdfast.workload.statistics import Statistics

__all__ = ["ConvertArguments", "StatsArguments", "traces"]

_CONVERSION_SCHEMA = "holdfast.conversion/1"


@click.group()
def traces() -> None:
    """Look at recorded sessions, check, study and convert them.

    PATH is a trace file or a directory of them; the format is detected. See docs/traces.md.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertArguments:
    """The arguments of `holdfast traces convert`.

    Attributes:
        paths: Trace files, and directories of them.
        format_name: Format to write.
        output: File or directory to write.
        block_size_tokens: Tokens in a block; None is the format's own default.
        keeps_text: Whether the text of turns is kept.
        json_path: File for the counts.
        lenient: Whether faulty parts of files are left out and counted.
    """

    paths: Annotated[tuple[Path, ...], PATHS]
    format_name: Annotated[str, TO_FORMAT.but(required=True)]
    output: Annotated[Path, OUTPUT]
    block_size_tokens: Annotated[
        int | None,
        option(
            "--block-size",
            type=click.IntRange(min=1),
            help="Tokens in a block, for mooncake and agentic-mooncake.  [default: 512; the "
            "trace's own]",
        ),
    ]
    keeps_text: Annotated[
        bool,
        option(
            "--keep-text",
            is_flag=True,
            help="Keep the text of turns where PATH has it; only the format holdfast holds it.",
        ),
    ]
    json_path: Annotated[
        Path | None,
        JSON_FILE.but(help="Write how much was converted, and what was lost, here."),
    ]
    lenient: Annotated[bool, LENIENT]


@traces.command()
@takes(ConvertArguments)
def convert(options: ConvertArguments) -> None:
    """Write the sessions of PATH in another format, and list what is lost.

    The output is written whole or not at all.
    """
    console, errors = Console(), Console(stderr=True)
    skipped, unread = Skipped(errors), Unread(errors)
    on_skipped = skipped if options.lenient else None
    source = TraceSource(options.paths, errors, on_skipped, options.keeps_text, on_unread=unread)
    text = TextCount()
    reports: list[FileReport] = []
    source.on_file += [text.add_file, reports.append]
    with source.sessions() as sessions:
        losses = write_sessions(
            text.counted(sessions), options.output, options.format_name, options.block_size_tokens
        )
    skipped.print_total()
    counts = {
        "num_turns": text.num_turns,
        "num_turns_with_text": text.num_with_text,
        "num_skipped": skipped.num_skipped,
        "num_unread_files": len(unread.found),
        "num_negative_values": print_negative(reports, errors),
    }
    if options.json_path is not None:
        document: dict[str, Any] = {"schema": _CONVERSION_SCHEMA, "format": options.format_name}
        document |= {**counts, "losses": dict(losses)}
        content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        write_whole(options.json_path, content)
    console.print(f"wrote {escape(str(options.output))}", highlight=False, soft_wrap=True)
    if options.keeps_text:
        console.print(text.sentence(), highlight=False, markup=False, soft_wrap=True)
    if losses:
        console.print(losses_table(losses))
    unread.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsArguments:
    """The arguments of `holdfast traces stats`.

    Attributes:
        paths: Trace files, and directories of them.
        json_path: File for all figures.
        lenient: Whether faulty parts of files are left out and counted.
    """

    paths: Annotated[tuple[Path, ...], PATHS]
    json_path: Annotated[Path | None, JSON_FILE.but(help="Write all figures here.")]
    lenient: Annotated[bool, LENIENT]


@traces.command()
@takes(StatsArguments)
def stats(options: StatsArguments) -> None:
    """Show what PATH holds: sessions, turns, tokens, gaps and reuse."""
    console, errors = Console(), Console(stderr=True)
    skipped, unread = Skipped(errors), Unread(errors)
    on_skipped = skipped if options.lenient else None
    source = TraceSource(options.paths, errors, on_skipped, on_unread=unread)
    statistics = Statistics()
    source.on_file.append(statistics.add_file)
    with source.sessions() as sessions:
        for session in sessions:
            statistics.add(session)
    skipped.print_total()
    document = statistics.summary(num_skipped=skipped.num_skipped, unread_files=unread.names)
    for table in statistics_tables(document):
        console.print(table)
    if options.json_path is not None:
        write_whole(options.json_path, document.to_json())
    unread.check()


traces.add_command(fit)
traces.add_command(generate)
traces.add_command(study)
traces.add_command(validate)
