"""`holdfast traces study`: what a workload asks of a KV cache."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from holdfast.cli.lists import whole_numbers
from holdfast.cli.traces_source import (
    LENIENT,
    PATHS,
    Skipped,
    TraceSource,
    Unread,
    say_negative,
)
from holdfast.errors import ConfigError
from holdfast.report.page import require_plots, write_whole
from holdfast.report.study_findings import FINDINGS
from holdfast.report.study_html import TITLES, write_study_html
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile, profile_names
from holdfast.traces.io import FileReport
from holdfast.traces.storage import printable
from holdfast.workload.study.sampling import MAX_BLOCKS
from holdfast.workload.study.workload import EngineSize, Study, StudyOptions, WorkloadStudy

__all__ = ["study"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_CONTEXT_TOKENS = 8192
_BATCH = 8


@click.command(short_help="What a workload asks of a KV cache.")
@PATHS
@click.option(
    "--profile",
    "profile_name",
    default="h100-llama3.1-8b",
    show_default=True,
    help=f"Engine to compare sizes with: {', '.join(profile_names())}, or a file.",
)
@click.option(
    "--concurrency",
    callback=whole_numbers,
    metavar="N,...",
    default="1,4,16,64",
    show_default=True,
    help="Sessions live at once, comma-separated.",
)
@click.option("--open-loop", is_flag=True, help="Start sessions at their recorded times instead.")
@click.option("--gap-cap-s", type=click.FloatRange(min=0), help="Cut gaps to this under load.")
@click.option(
    "--sample-rate",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the blocks that caches are computed from; 1 is exact.",
)
@click.option(
    "--max-blocks",
    type=click.IntRange(min=1000),
    default=MAX_BLOCKS,
    show_default=True,
    help="Compute caches from a sample of so many blocks where there are more.",
)
@LENIENT
@click.option("--json", "json_path", type=_FILE, help="Write all numbers here.")
@click.option("--html", "html_path", type=_FILE, help="Write a page with plots here.")
def study(**arguments: Any) -> None:
    """Study the sessions in each PATH, a file or directory, all together.

    Prints one sentence a section; the page has the figures, the JSON all numbers.
    """
    if arguments["html_path"] is not None:
        require_plots()
    profile = load_profile(arguments["profile_name"])
    options = StudyOptions(
        concurrency=None if arguments["open_loop"] else arguments["concurrency"],
        gap_cap_s=arguments["gap_cap_s"],
        sample_rate=arguments["sample_rate"],
        max_blocks=arguments["max_blocks"],
    )
    errors = Console(stderr=True)
    unread = Unread(errors)
    found = _studied(arguments, WorkloadStudy(_engine_of(profile), options), errors, unread)
    for section in TITLES:
        if section != "tools" or found.tools_by_kind:
            click.echo(f"{TITLES[section]}: {FINDINGS[section](found)}")
    left_out = set(options.loads) - {load.concurrency for load in found.loads}
    if left_out:
        loads = ", ".join(map(str, sorted(load for load in left_out if load is not None)))
        errors.print(f"too few sessions for {loads} at once", style="yellow", highlight=False)
    if arguments["json_path"] is not None:
        write_whole(arguments["json_path"], msgspec.json.format(msgspec.json.encode(found)))
    if arguments["html_path"] is not None:
        write_study_html(arguments["html_path"], found)
    unread.check()


def _studied(
    arguments: dict[str, Any], workload: WorkloadStudy, errors: Console, unread: Unread
) -> Study:
    reports: list[FileReport] = []
    skipped = Skipped(errors)

    on_skipped = skipped if arguments["lenient"] else None
    for reading, path in enumerate(arguments["paths"]):
        source = TraceSource(
            (path,), errors, on_skipped, on_file=[reports.append], on_unread=unread
        )
        with source.sessions() as sessions:
            for session in sessions:
                workload.add(session, reading)
    skipped.say()
    num_corrected = sum(report.num_corrected_gaps for report in reports)
    if num_corrected:
        errors.print(
            f"[yellow]{num_corrected:,} gaps contained a dropped duplicate call[/]; its time is "
            "estimated and taken off",
            highlight=False,
        )
    num_negative = say_negative(reports, errors)
    return workload.finish(
        {
            "versions": {"holdfast": version("holdfast"), "python": platform.python_version()},
            "digests": {report.name: report.sha256 for report in reports},
            "num_skipped": skipped.num_skipped,
            "unread_files": unread.names,
            "num_negative_values": num_negative,
            "num_estimated_gaps": sum(report.num_estimated_gaps for report in reports),
            "num_corrected_gaps": num_corrected,
            "arguments": {name: _named(value) for name, value in arguments.items()},
        }
    )


def _named(value: Any) -> Any:
    """Names only: where files lie says nothing about what was studied."""
    if isinstance(value, Path):
        return printable(value.name)
    return [_named(each) for each in value] if isinstance(value, tuple) else value


def _engine_of(profile: CostProfile) -> EngineSize:
    """Sizes and speeds of an engine with one prompt, and with some answers, in the works."""
    chunk = profile.max_num_batched_tokens
    decode_s = profile.step_time_s([(1, _CONTEXT_TOKENS)] * _BATCH)
    if profile.kv_tokens < 1:
        raise ConfigError(f"profile {profile.name!r} has no room for KV")
    return EngineSize(
        name=profile.name,
        kv_bytes_per_token=profile.kv_bytes_per_token,
        kv_tokens=profile.kv_tokens,
        prompt_s_per_token=profile.step_time_s([(chunk, _CONTEXT_TOKENS)]) / chunk,
        output_s_per_token=decode_s,
    )
