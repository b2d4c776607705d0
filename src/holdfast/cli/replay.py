"""`holdfast replay`: closed-loop load from traces on live endpoints."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.bench.client import Timeouts
from holdfast.bench.load import LoadOptions
from holdfast.bench.prompts import DEFAULT_ALPHABET, Alphabet
from holdfast.bench.replay import Replay, ReplayTarget, replay_sessions
from holdfast.bench.turn_records import append_turns
from holdfast.cli.load_warnings import warn_of_lighter_load, warn_of_too_few
from holdfast.cli.replay_table import results_table
from holdfast.cli.traces_source import LENIENT, Skipped, Unread, say_negative
from holdfast.core.results import RunDocument, TurnRecord
from holdfast.errors import ConfigError
from holdfast.report.document import write_document
from holdfast.report.manifest import run_manifest
from holdfast.traces.digest import sessions_digest
from holdfast.traces.gaps import GapEvidence
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session
from holdfast.traces.selection import Selection, SessionSelection
from holdfast.workload.synthetic import iterate_sessions

__all__ = ["replay"]

_SYNTHETIC = "synthetic"
_SYNTHETIC_SESSIONS = 20
_EXIT_ALL_FAILED = 1


@dataclass(slots=True)
class _Workload:
    sessions: tuple[Session, ...]
    reports: list[FileReport]
    skipped: Skipped
    unread: Unread


@click.command(short_help="Replay traces on live endpoints, closed loop.")
@click.option("--traces", required=True, help="File or directory, or synthetic[:SEED].")
@click.option("--url", required=True, help="Base URL of an OpenAI-compatible endpoint.")
@click.option("--against", help="Second endpoint: the same sessions afterwards, and the ratios.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Sessions live at once.",
)
@click.option(
    "--sessions",
    "num_sessions",
    type=click.IntRange(min=1),
    help="Sessions in all.  [default: every one; 20 if synthetic]",
)
@click.option("--gap-cap-s", type=click.FloatRange(min=0), help="Cut recorded gaps to this.")
@click.option(
    "--max-model-len",
    type=click.IntRange(min=2),
    help="Leave out sessions that outgrow this many replayed tokens.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Replayed seconds per recorded second of a gap.",
)
@click.option(
    "--token-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Replayed tokens per recorded token.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which sessions, and their order.",
)
@LENIENT
@click.option("--model", help="Model name to send.  [default: what the endpoint lists first]")
@click.option(
    "--vocab-size",
    type=click.IntRange(min=8),
    default=DEFAULT_ALPHABET.vocab_size,
    show_default=True,
    help="Prompts use token ids below this.",
)
@click.option("--label", help="Name of the policy at --url.  [default: from its metrics]")
@click.option("--against-label", help="Name of the policy at --against.")
@click.option("--session-ids", is_flag=True, help="Send X-Session-ID.")
@click.option(
    "--turn-ends/--no-turn-ends",
    default=True,
    show_default=True,
    help="Send what ends each turn, in place of the text a real model would write.",
)
@click.option(
    "--stall-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=Timeouts().stall_s,
    show_default=True,
    help="Give a turn up when nothing arrives for this long.",
)
@click.option(
    "--connect-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=Timeouts().connect_s,
    show_default=True,
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the results here.",
)
@click.option(
    "--records",
    "records_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one JSON line a turn here.",
)
@click.pass_context
def replay(context: click.Context, /, **arguments: Any) -> None:
    """Replay recorded agent sessions on live endpoints.

    Each of --concurrency sessions sends its next turn when the previous answer has ended and the
    recorded gap has passed; when a session ends the next one starts. A turn that fails ends its
    session. Ctrl-C stops the run and keeps what there is, marked as partial. The exit status is 1
    if an endpoint answered no turn at all, and 2 if a file of the traces was not read.
    """
    console, errors = Console(), Console(stderr=True)
    _check_writable(arguments["json_path"], arguments["records_path"])
    workload = _workload(arguments, errors)
    replays = asyncio.run(_replay_all(workload.sessions, arguments, errors))
    console.print(results_table([done.result for done in replays]))
    for done in replays:
        warn_of_lighter_load(done.result, errors)
        _say_errors(done, errors)
    if arguments["json_path"] is not None:
        document = RunDocument(
            manifest=_manifest(workload, arguments, replays),
            runs=[done.result for done in replays],
        )
        write_document(arguments["json_path"], document)
    if arguments["records_path"] is not None:
        _write_records(arguments["records_path"], replays)
    if any(done.result.num_errors and not done.result.num_turns for done in replays):
        context.exit(_EXIT_ALL_FAILED)
    workload.unread.check()


def _check_writable(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise ConfigError(f"cannot write {str(path)!r}: its directory does not exist")


def _workload(arguments: dict[str, Any], errors: Console) -> _Workload:
    traces: str = arguments["traces"]
    num_sessions: int | None = arguments["num_sessions"]
    is_synthetic = traces == _SYNTHETIC or traces.startswith(f"{_SYNTHETIC}:")
    reports: list[FileReport] = []
    skipped, unread = Skipped(errors), Unread(errors)
    source: Iterator[Session]
    if is_synthetic:
        num_sessions = num_sessions or _SYNTHETIC_SESSIONS
        source = iterate_sessions(_synthetic_seed(traces, arguments["seed"]))
    else:
        source = read_sessions(
            Path(traces),
            seed=arguments["seed"],
            on_file=reports.append,
            on_skipped=skipped if arguments["lenient"] else None,
            on_unread=unread,
        )
    selection = SessionSelection(
        num_sessions=num_sessions,
        gap_cap_s=arguments["gap_cap_s"],
        max_model_len=arguments["max_model_len"],
        token_scale=arguments["token_scale"],
    )
    with errors.status("Reading sessions"):
        selected = selection.select(source)
    skipped.say()
    _say_selection(selected, num_sessions, reports, errors)
    warn_of_too_few(len(selected.sessions), arguments["concurrency"], errors)
    return _Workload(selected.sessions, reports, skipped, unread)


def _synthetic_seed(traces: str, seed: int) -> int:
    _, _, text = traces.partition(":")
    if not text:
        return seed
    if not text.isdecimal():
        raise ConfigError(f"--traces is {traces!r}; expected synthetic or synthetic:SEED")
    return int(text)


def _say_selection(
    selected: Selection, num_sessions: int | None, reports: list[FileReport], errors: Console
) -> None:
    num_turns = sum(len(session.turns) for session in selected.sessions)
    errors.print(f"{len(selected.sessions)} sessions, {num_turns} turns", highlight=False)
    if selected.num_outgrown:
        errors.print(f"left out: {selected.num_outgrown} sessions that outgrow the model's context")
    if num_sessions is not None and len(selected.sessions) < num_sessions:
        errors.print(f"[yellow]fewer sessions than the {num_sessions} asked for[/]")
    defective = [report for report in reports if report.known_gap_defect]
    pooled = sum((report.gaps for report in reports), GapEvidence())
    if defective or pooled.known_gap_defect:
        num_corrected = sum(report.num_corrected_gaps for report in reports)
        errors.print(
            f"[bold yellow]known defect:[/] in {len(defective)} of {len(reports)} files the "
            f"recorded gaps contain a dropped duplicate call. {num_corrected:,} gaps are shortened "
            "by the latency of the call it repeated, an estimate; files too small to tell are "
            f"left as recorded. ({pooled})",
            highlight=False,
        )
    say_negative(reports, errors)
    num_estimated = sum(report.num_estimated_gaps for report in reports)
    if num_estimated:
        errors.print(
            f"[yellow]{num_estimated} gaps are not recorded and were taken from timestamps[/]; "
            "where latencies are missing too they contain the answer's time"
        )


async def _replay_all(
    sessions: tuple[Session, ...], arguments: dict[str, Any], errors: Console
) -> list[Replay]:
    stop = asyncio.Event()
    replays: list[Replay] = []
    with _interrupts_set(stop, errors):
        for target in _targets(arguments):
            replays.append(await _replay_one(target, sessions, arguments, stop, errors))
            if stop.is_set():
                break
    return replays


def _targets(arguments: dict[str, Any]) -> list[ReplayTarget]:
    alphabet = Alphabet.for_vocabulary(arguments["vocab_size"])
    timeouts = Timeouts(
        connect_s=arguments["connect_timeout_s"], stall_s=arguments["stall_timeout_s"]
    )
    endpoints = [
        (arguments["url"], arguments["label"]),
        (arguments["against"], arguments["against_label"]),
    ]
    return [
        ReplayTarget(url, arguments["model"], label, alphabet, timeouts)
        for url, label in endpoints
        if url is not None
    ]


async def _replay_one(
    target: ReplayTarget,
    sessions: tuple[Session, ...],
    arguments: dict[str, Any],
    stop: asyncio.Event,
    errors: Console,
) -> Replay:
    options = LoadOptions(
        concurrency=arguments["concurrency"],
        time_scale=arguments["time_scale"],
        token_scale=arguments["token_scale"],
        session_ids=arguments["session_ids"],
        turn_ends=arguments["turn_ends"],
    )
    num_turns = sum(len(session.turns) for session in sessions)
    with _progress(target.label_or_url, num_turns, errors) as on_turn:
        return await replay_sessions(
            target, sessions, options, seed=arguments["seed"], stop=stop, on_turn=on_turn
        )


@contextmanager
def _progress(name: str, num_turns: int, errors: Console) -> Iterator[Callable[[TurnRecord], None]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("turns, {task.fields[failed]} failed"),
        TimeElapsedColumn(),
        console=errors,
        # The client shares its cores with the engine it measures.
        refresh_per_second=2,
    )
    num_failed = 0
    with progress:
        task = progress.add_task(name, total=num_turns, failed=0)

        def on_turn(record: TurnRecord) -> None:
            nonlocal num_failed
            num_failed += record.error_kind is not None
            progress.update(task, advance=1, failed=num_failed)

        yield on_turn


@contextmanager
def _interrupts_set(stop: asyncio.Event, errors: Console) -> Iterator[None]:
    """Turn the first Ctrl-C into a stop; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def on_interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        errors.print("[yellow]stopping; Ctrl-C again to quit without results[/]")
        stop.set()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _manifest(
    workload: _Workload, arguments: dict[str, Any], replays: list[Replay]
) -> dict[str, Any]:
    digests = {report.name: report.sha256 for report in workload.reports}
    manifest = run_manifest(
        arguments={
            name: str(value) if isinstance(value, Path) else value
            for name, value in arguments.items()
        },
        runs=[done.result for done in replays],
        digests={**digests, "sessions": sessions_digest(workload.sessions)},
    )
    return {
        **manifest,
        "models": [done.model for done in replays],
        "known_gap_defect": [r.name for r in workload.reports if r.known_gap_defect],
        "num_corrected_gaps": sum(report.num_corrected_gaps for report in workload.reports),
        "num_negative_values": sum(report.num_negative_values for report in workload.reports),
        "num_skipped": workload.skipped.num_skipped,
        "unread_files": workload.unread.names,
    }


def _write_records(path: Path, replays: list[Replay]) -> None:
    path.unlink(missing_ok=True)
    for done in replays:
        append_turns(path, done.result.policy, done.records.turns)


def _say_errors(done: Replay, errors: Console) -> None:
    failed = [turn for turn in done.records.turns if turn.error_kind not in (None, "cancelled")]
    for kind in sorted({turn.error_kind for turn in failed if turn.error_kind}):
        same = [turn for turn in failed if turn.error_kind == kind]
        first = same[0]
        errors.print(
            f"[red]{done.result.policy}: {len(same)} turns failed ({kind})[/], first "
            f"{first.session_id} turn {first.turn_index}: {first.error}",
            markup=True,
            highlight=False,
        )
