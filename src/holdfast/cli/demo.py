"""`holdfast demo`: stock vLLM against Holdfast on this machine, in minutes."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from msgspec import UNSET
from rich.console import Console

from holdfast.bench.demo import TIERED, Demo, DemoPoint, DemoWatcher, Scheduling
from holdfast.cli.demo_options import DemoArguments
from holdfast.cli.options import arguments_of, takes
from holdfast.cli.progress import progress_bar
from holdfast.core.results import RunDocument, RunResult, TurnRecord
from holdfast.errors import EngineError
from holdfast.report.demo_report import demo_page, demo_tables
from holdfast.report.document import write_document
from holdfast.report.html import write_html
from holdfast.report.manifest import run_manifest
from holdfast.report.page import require_plots
from holdfast.report.terminal import terminal_tables

__all__ = ["demo"]

_EXIT_INTERRUPTED = 130


@click.command(short_help="Stock vLLM against Holdfast, on the CPU, with a tiny model.")
@takes(DemoArguments)
def demo(options: DemoArguments) -> None:
    """Replay the same sessions on stock vLLM and on Holdfast, and compare.

    A tiny model with random weights is built locally and served on the CPU with a small KV cache,
    first with few sessions, then with more than the cache can hold. Holdfast keeps what it learned
    at the first load for the second one; nothing is carried from seed to seed. The second load
    then runs on Holdfast with tiers below the KV cache, and after a restart of the engine each
    session takes one more turn. Ctrl-C ends the servers and keeps the finished runs.
    """
    from holdfast.vllm.versions import engine_version

    engine_version()
    if options.html_path is not None:
        require_plots()
    context = click.get_current_context()
    console, errors = Console(), Console(stderr=True)
    plan = options.plan()
    directory = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    keeps_logs = options.keep_logs
    watcher = _Progress(errors)
    measured = Demo(plan, directory, watcher, records=options.records_path)
    is_interrupted = False
    try:
        with watcher, _terminations_interrupt():
            measured.run()
    except KeyboardInterrupt:
        is_interrupted = True
        errors.print("interrupted; the finished runs are kept")
    except EngineError:
        keeps_logs = True
        raise
    finally:
        if keeps_logs:
            errors.print(f"logs: {directory}", highlight=False)
        else:
            shutil.rmtree(directory, ignore_errors=True)
        if measured.runs:
            _report(measured, options, arguments_of(context), console)
    if is_interrupted:
        context.exit(_EXIT_INTERRUPTED)


def _report(
    measured: Demo, options: DemoArguments, arguments: dict[str, Any], console: Console
) -> None:
    runs, restarted = measured.runs, measured.restarted
    console.print(terminal_tables(demo_tables(runs, restarted, TIERED)))
    manifest = run_manifest(arguments=arguments, runs=runs, digests=measured.digests)
    if options.json_path is not None:
        document = RunDocument(manifest=manifest, runs=runs, restarted=restarted or UNSET)
        write_document(options.json_path, document)
    if options.html_path is not None:
        remarks = () if measured.no_tiers is None else (_without_tiers(measured.no_tiers),)
        page = demo_page(runs, restarted, TIERED, remarks)
        write_html(options.html_path, page, manifest)


def _without_tiers(reason: str) -> str:
    return f"without tiers: {reason}"


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Make SIGTERM unwind as Ctrl-C does, so that the servers are ended."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Progress(DemoWatcher):
    """Shows the run in progress, on the error stream."""

    def __init__(self, errors: Console) -> None:
        # The display shares its cores with the engine it watches.
        self._progress = progress_bar(errors, "turns", refresh_per_second=2)
        self._task = self._progress.add_task("", visible=False)

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def server_starts(self, scheduling: Scheduling, seed: int) -> None:
        self._show(f"{scheduling}, seed {seed}: starting the server", None)

    def run_starts(
        self, scheduling: Scheduling, seed: int, point: DemoPoint, num_turns: int
    ) -> None:
        self._show(f"{scheduling}, seed {seed}: {point.concurrency} sessions at once", num_turns)

    def turn_ends(self, record: TurnRecord) -> None:
        self._progress.advance(self._task)

    def run_ends(self, result: RunResult) -> None:
        hits = "unknown" if result.token_hit_ratio is None else f"{result.token_hit_ratio:.3f}"
        self._progress.console.print(
            f"{result.policy}, seed {result.seed}, {result.concurrency} sessions at once: "
            f"{result.makespan_s or 0.0:.0f} s, hit ratio {hits}, {result.num_errors} errors",
            highlight=False,
        )

    def tiers_left_out(self, reason: str) -> None:
        self._progress.console.print(_without_tiers(reason), highlight=False)

    def _show(self, description: str, total: int | None) -> None:
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(description, total=total)
