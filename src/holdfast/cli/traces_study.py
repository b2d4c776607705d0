"""`holdfast traces study`: what a workload asks of a KV cache."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from rich.console import Console

from holdfast.cli.load_options import GAP_CAP, LENIENT, LOADS, OPEN_LOOP
from holdfast.cli.options import HTML_FILE, JSON_FILE, arguments_of, option, takes
from holdfast.cli.traces_source import PATHS, Skipped, TraceSource, Unread, print_negative
from holdfast.errors import ConfigError
from holdfast.report.page import require_plots, write_whole
from holdfast.report.study_findings import FINDINGS
from holdfast.report.study_html import TITLES, write_study_html
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile, profile_names
from holdfast.traces.io import FileReport
from holdfast.workload.study.sampling import MAX_BLOCKS
from holdfast.workload.study.workload import EngineSize, Study, StudyOptions, WorkloadStudy

__all__ = ["StudyArguments", "study"]

_CONTEXT_TOKENS = 8192
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyArguments:
    """The arguments of `holdfast traces study`.

    Attributes:
        paths: Trace files, and directories of them.
        profile_name: Name or file of the engine's cost profile.
        concurrency: Sessions live at once, one number for each load.
        open_loop: Whether sessions start at their recorded times.
        gap_cap_s: Longest gap under load, in recorded seconds.
        sample_rate: Share of the blocks that caches are computed from.
        max_blocks: Blocks that caches are computed from, at most.
        lenient: Whether faulty parts of files are left out and counted.
        json_path: File for all numbers.
        html_path: File for the page.
    """

    paths: Annotated[tuple[Path, ...], PATHS]
    profile_name: Annotated[
        str,
        option(
            "--profile",
            default="h100-llama3.1-8b",
            show_default=True,
            help=f"Engine to compare sizes with: {', '.join(profile_names())}, or a file.",
        ),
    ]
    concurrency: Annotated[
        tuple[int, ...],
        LOADS.but(default="1,4,16,64", help="Sessions live at once, comma-separated."),
    ]
    open_loop: Annotated[bool, OPEN_LOOP]
    gap_cap_s: Annotated[float | None, GAP_CAP]
    sample_rate: Annotated[
        float,
        option(
            "--sample-rate",
            type=click.FloatRange(min=0, max=1, min_open=True),
            default=1.0,
            show_default=True,
            help="Share of the blocks that caches are computed from; 1 is exact.",
        ),
    ]
    max_blocks: Annotated[
        int,
        option(
            "--max-blocks",
            type=click.IntRange(min=1000),
            default=MAX_BLOCKS,
            show_default=True,
            help="Where there are more blocks, compute caches from a sample of this many.",
        ),
    ]
    lenient: Annotated[bool, LENIENT]
    json_path: Annotated[Path | None, JSON_FILE]
    html_path: Annotated[Path | None, HTML_FILE]


@click.command(short_help="What a workload asks of a KV cache.")
@takes(StudyArguments)
def study(options: StudyArguments) -> None:
    """Study the sessions in each PATH, a file or directory, all together.

    Prints one sentence a section; the page has the plots, the JSON all numbers.
    """
    if options.html_path is not None:
        require_plots()
    profile = load_profile(options.profile_name)
    study_options = StudyOptions(
        concurrency=None if options.open_loop else options.concurrency,
        gap_cap_s=options.gap_cap_s,
        sample_rate=options.sample_rate,
        max_blocks=options.max_blocks,
    )
    arguments = arguments_of(click.get_current_context())
    errors = Console(stderr=True)
    unread = Unread(errors)
    workload = WorkloadStudy(_engine_of(profile), study_options)
    found = _studied(options, arguments, workload, errors, unread)
    for section in TITLES:
        if section != "tools" or found.tools_by_kind:
            click.echo(f"{TITLES[section]}: {FINDINGS[section](found)}")
    left_out = set(study_options.loads) - {load.concurrency for load in found.loads}
    if left_out:
        loads = ", ".join(map(str, sorted(load for load in left_out if load is not None)))
        errors.print(f"too few sessions for {loads} at once", style="yellow", highlight=False)
    if options.json_path is not None:
        write_whole(options.json_path, msgspec.json.format(msgspec.json.encode(found)))
    if options.html_path is not None:
        write_study_html(options.html_path, found)
    unread.check()


def _studied(
    options: StudyArguments,
    arguments: dict[str, Any],
    workload: WorkloadStudy,
    errors: Console,
    unread: Unread,
) -> Study:
    reports: list[FileReport] = []
    skipped = Skipped(errors)
    on_skipped = skipped if options.lenient else None
    for reading, path in enumerate(options.paths):
        source = TraceSource(
            (path,), errors, on_skipped, on_file=[reports.append], on_unread=unread
        )
        with source.sessions() as sessions:
            for session in sessions:
                workload.add(session, reading)
    skipped.print_total()
    num_corrected = sum(report.num_corrected_gaps for report in reports)
    if num_corrected:
        errors.print(
            f"[yellow]{num_corrected:,} gaps contained a dropped duplicate call[/]; its time is "
            "estimated and taken off",
            highlight=False,
        )
    num_negative = print_negative(reports, errors)
    return workload.finish(
        {
            "versions": {"holdfast": version("holdfast"), "python": platform.python_version()},
            "digests": {report.name: report.sha256 for report in reports},
            "num_skipped": skipped.num_skipped,
            "unread_files": unread.names,
            "num_negative_values": num_negative,
            "num_estimated_gaps": sum(report.num_estimated_gaps for report in reports),
            "num_corrected_gaps": num_corrected,
            "arguments": arguments,
        }
    )


def _engine_of(profile: CostProfile) -> EngineSize:
    """Size and speed of an engine that computes one prompt, or decodes a few answers."""
    chunk = profile.max_num_batched_tokens
    decode_s = profile.step_time_s([(1, _CONTEXT_TOKENS)] * _BATCH)
    if profile.kv_tokens < 1:
        raise ConfigError(f"profile {profile.name!r} has no KV cache", hint="set its kv_tokens")
    return EngineSize(
        name=profile.name,
        kv_bytes_per_token=profile.kv_bytes_per_token,
        kv_tokens=profile.kv_tokens,
        prompt_s_per_token=profile.step_time_s([(chunk, _CONTEXT_TOKENS)]) / chunk,
        output_s_per_token=decode_s,
    )
