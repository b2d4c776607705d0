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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.bench.demo import TIERED, Demo, DemoPlan, DemoPoint, DemoWatcher, Scheduling
from holdfast.core.results import RunDocument, RunResult, TurnRecord
from holdfast.errors import ConfigError, EngineError
from holdfast.report.comparison import TIER_METRICS, compare
from holdfast.report.document import write_document
from holdfast.report.html import write_html
from holdfast.report.manifest import run_manifest
from holdfast.report.page import require_plots
from holdfast.report.table import comparison_table

__all__ = ["demo"]

_EXIT_INTERRUPTED = 130
_POSITIVE = click.IntRange(min=1)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Stock vLLM against Holdfast, on the CPU, with a tiny model.")
@click.option(
    "--traces",
    type=click.Path(exists=True, path_type=Path),
    help="File or directory of sessions.  [default: generated ones]",
)
@click.option(
    "--concurrency",
    nargs=2,
    type=_POSITIVE,
    default=(2, 14),
    show_default=True,
    metavar="LOW HIGH",
    help="Sessions live at once, below and past the cliff.",
)
@click.option(
    "--sessions",
    "num_sessions",
    nargs=2,
    type=_POSITIVE,
    default=(2, 14),
    show_default=True,
    metavar="LOW HIGH",
    help="Sessions in all, at the same two points.",
)
@click.option(
    "--kv-tokens",
    type=click.IntRange(min=64),
    help="Size of the KV cache, which must hold the longest session.  [default: a quarter of what "
    "the sessions past the cliff need at once]",
)
@click.option(
    "--max-model-len",
    type=click.IntRange(min=2),
    default=8000,
    show_default=True,
    help="Leave out sessions that outgrow this many replayed tokens.",
)
@click.option(
    "--turns",
    "max_turns",
    type=_POSITIVE,
    default=24,
    show_default=True,
    help="Turns of a session, at most; cut, so that long sessions do not remain alone at the end.",
)
@click.option(
    "--token-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1 / 16,
    show_default=True,
    help="Replayed tokens per recorded token.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0),
    default=0.005,
    show_default=True,
    help="Replayed seconds per recorded second of a gap.",
)
@click.option(
    "--gap-cap-s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Cut recorded gaps to this.",
)
@click.option(
    "--seeds",
    "num_seeds",
    type=_POSITIVE,
    default=1,
    show_default=True,
    help="Comparisons, each on other sessions; every second one runs Holdfast first.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first.")
@click.option(
    "--tiers/--no-tiers",
    "has_tiers",
    default=True,
    show_default=True,
    help="Then Holdfast with a host tier and a pool, and a restart of the engine.",
)
@click.option("--json", "json_path", type=_FILE, help="Write the results here.")
@click.option("--html", "html_path", type=_FILE, help="Write a page with plots here.")
@click.option(
    "--records",
    "records_path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory for one file of turns, as JSON lines, a run.",
)
@click.option("--keep-logs", is_flag=True, help="Keep the servers' logs, and say where.")
@click.pass_context
def demo(context: click.Context, /, **arguments: Any) -> None:
    """Replay the same sessions on stock vLLM and on Holdfast, and compare.

    A tiny model with random weights is built locally and served on the CPU with a small KV cache,
    first with few sessions, then with more than the cache can hold. What Holdfast learns at the
    first point is still known at the second; nothing is carried from seed to seed. The second load
    then runs on Holdfast with tiers below the cache, and after a restart each session takes one
    turn more. Ctrl-C ends the servers and keeps the runs that are finished.
    """
    from holdfast.vllm.versions import engine_version

    engine_version()
    if arguments["html_path"] is not None:
        require_plots()
    console, errors = Console(), Console(stderr=True)
    plan = _plan(arguments)
    directory = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    keeps_logs = arguments["keep_logs"]
    watcher = _Progress(errors)
    measured = Demo(plan, directory, watcher, records=arguments["records_path"])
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
        _report(measured, arguments, console)
    if is_interrupted:
        context.exit(_EXIT_INTERRUPTED)


def _plan(arguments: dict[str, Any]) -> DemoPlan:
    loads = zip(arguments["concurrency"], arguments["num_sessions"], strict=True)
    first_seed = arguments["seed"]
    kv_tokens = arguments["kv_tokens"]
    if kv_tokens is not None and kv_tokens < arguments["max_model_len"]:
        raise ConfigError(
            f"kv-tokens is {kv_tokens}, expected at least max-model-len "
            f"({arguments['max_model_len']})",
            hint="vLLM does not start with a cache that cannot hold one whole request",
        )
    return DemoPlan(
        traces=arguments["traces"],
        points=tuple(DemoPoint(concurrency, num) for concurrency, num in loads),
        seeds=tuple(range(first_seed, first_seed + arguments["num_seeds"])),
        kv_tokens=kv_tokens,
        max_model_len=arguments["max_model_len"],
        max_turns=arguments["max_turns"],
        token_scale=arguments["token_scale"],
        time_scale=arguments["time_scale"],
        gap_cap_s=arguments["gap_cap_s"],
        has_tiers=arguments["has_tiers"],
    )


def _report(measured: Demo, arguments: dict[str, Any], console: Console) -> None:
    if not measured.runs:
        return
    comparison = compare(measured.runs)
    console.print(comparison_table(comparison))
    _print_tiers(measured, console)
    manifest = run_manifest(
        # Names only: where the files lie says nothing about what was measured.
        arguments={
            name: value.name if isinstance(value, Path) else value
            for name, value in arguments.items()
        },
        runs=measured.runs,
        digests=measured.digests,
    )
    if arguments["json_path"] is not None:
        document = RunDocument(
            manifest=manifest, runs=measured.runs, restarted=measured.restarted or UNSET
        )
        write_document(arguments["json_path"], document)
    if arguments["html_path"] is not None:
        write_html(arguments["html_path"], comparison, manifest)


def _print_tiers(measured: Demo, console: Console) -> None:
    if all(run.policy != TIERED for run in measured.runs):
        return
    load = measured.plan.points[-1].concurrency
    past_cliff = [run for run in measured.runs if run.concurrency == load]
    for runs, what in (
        (past_cliff, "KV below the cache: "),
        (measured.restarted, "the next turn after a restart: "),
    ):
        found = compare(runs, baseline="holdfast", subject=TIERED, metrics=TIER_METRICS)
        console.print(comparison_table(found, what=what))


@contextmanager
def _terminations_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so that the servers are ended."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Progress(DemoWatcher):
    """Shows what runs, on the error stream."""

    def __init__(self, errors: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("turns"),
            TimeElapsedColumn(),
            console=errors,
            refresh_per_second=2,  # the display shares its cores with the engine it watches
        )
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

    def tiers_left_out(self, why: str) -> None:
        self._progress.console.print(f"without tiers: {why}", highlight=False)

    def _show(self, description: str, total: int | None) -> None:
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(description, total=total)
