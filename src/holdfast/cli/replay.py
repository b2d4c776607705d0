"""`holdfast replay`: closed-loop load from traces on live endpoints."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
from rich.console import Console

from holdfast.bench.client import Timeouts
from holdfast.bench.load import SendOptions
from holdfast.bench.prompts import DEFAULT_ALPHABET, Alphabet
from holdfast.bench.replay import Replay, ReplayTarget, replay_sessions
from holdfast.bench.turn_records import append_turns
from holdfast.cli.load_options import SESSIONS, TRACES, LoadOptions
from holdfast.cli.load_warnings import warn_of_lighter_load
from holdfast.cli.options import FILE, JSON_FILE, arguments_of, option, takes
from holdfast.cli.progress import progress_bar
from holdfast.cli.replay_workload import ReplayWorkload, read_workload
from holdfast.core.results import RunDocument, TurnRecord
from holdfast.errors import ConfigError
from holdfast.report.document import write_document
from holdfast.report.manifest import run_manifest
from holdfast.report.replay_report import replay_table
from holdfast.report.terminal import terminal_table
from holdfast.traces.digest import sessions_digest

__all__ = ["ReplayArguments", "replay"]

_EXIT_ALL_FAILED = 1
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayArguments:
    """The options of `holdfast replay` besides the load options.

    Attributes:
        url: Base URL of the first endpoint.
        against: Base URL of the second one.
        model: Name to send; None asks the endpoint.
        vocab_size: Prompts use token ids below it.
        label: Name of the first endpoint's policy; None takes it from its metrics.
        against_label: Name of the second endpoint's policy.
        stall_timeout_s: Longest silence within a turn.
        connect_timeout_s: Longest wait for a connection.
        json_path: File for the results.
        records_path: File for the turns.
    """

    url: Annotated[
        str, option("--url", required=True, help="Base URL of an OpenAI-compatible endpoint.")
    ]
    against: Annotated[
        str | None,
        option("--against", help="Second endpoint: gets the same sessions, and is compared."),
    ]
    model: Annotated[
        str | None,
        option("--model", help="Model name to send.  [default: the first that the endpoint lists]"),
    ]
    vocab_size: Annotated[
        int,
        option(
            "--vocab-size",
            type=click.IntRange(min=8),
            default=DEFAULT_ALPHABET.vocab_size,
            show_default=True,
            help="Prompts use token ids below this.",
        ),
    ]
    label: Annotated[
        str | None,
        option("--label", help="Name of the policy at --url.  [default: from its metrics]"),
    ]
    against_label: Annotated[
        str | None,
        option("--against-label", help="Name of the policy at --against, likewise."),
    ]
    stall_timeout_s: Annotated[
        float,
        option(
            "--stall-timeout-s",
            type=_ABOVE_ZERO,
            default=Timeouts().stall_s,
            show_default=True,
            help="Count a turn as failed when nothing arrives for this long (s).",
        ),
    ]
    connect_timeout_s: Annotated[
        float,
        option(
            "--connect-timeout-s",
            type=_ABOVE_ZERO,
            default=Timeouts().connect_s,
            show_default=True,
            help="Count a turn as failed when no connection is made for this long (s).",
        ),
    ]
    json_path: Annotated[Path | None, JSON_FILE]
    records_path: Annotated[
        Path | None, option("--records", type=FILE, help="Write one JSON line for each turn here.")
    ]

    def targets(self) -> list[ReplayTarget]:
        """The endpoints, in the order in which they are measured."""
        alphabet = Alphabet.for_vocabulary(self.vocab_size)
        timeouts = Timeouts(connect_s=self.connect_timeout_s, stall_s=self.stall_timeout_s)
        endpoints = [(self.url, self.label), (self.against, self.against_label)]
        return [
            ReplayTarget(url, self.model, label, alphabet, timeouts)
            for url, label in endpoints
            if url is not None
        ]

    def check(self) -> None:
        """Check, before a long run, that the results can be written.

        Raises:
            ConfigError: The directory of an output file does not exist.
        """
        for path in (self.json_path, self.records_path):
            if path is not None and not path.resolve().parent.is_dir():
                raise ConfigError(f"cannot write {str(path)!r}: its directory does not exist")


@click.command(short_help="Replay traces on live endpoints, closed loop.")
@takes(
    LoadOptions,
    ReplayArguments,
    traces=TRACES.but(
        type=click.Path(path_type=Path),
        required=True,
        help="File or directory of sessions, or synthetic[:SEED].",
    ),
    num_sessions=SESSIONS.but(help="Sessions in all.  [default: every one; 20 if synthetic]"),
)
def replay(load: LoadOptions, options: ReplayArguments) -> None:
    """Replay recorded agent sessions on live endpoints.

    Each of --concurrency sessions sends its next turn when the previous answer has ended and the
    recorded gap has passed; when a session ends, the next one starts. A turn that fails ends its
    session. Ctrl-C stops the run and keeps the finished turns, marked as partial. The exit status
    is 1 if an endpoint answered no turn at all, and 2 if a trace file could not be read.
    """
    context = click.get_current_context()
    console, errors = Console(), Console(stderr=True)
    options.check()
    workload = read_workload(load, errors)
    replays = asyncio.run(_replay_all(workload, load, options, errors))
    console.print(terminal_table(replay_table([done.result for done in replays])))
    for done in replays:
        warn_of_lighter_load(done.result, errors)
        _print_errors(done, errors)
    if options.json_path is not None:
        arguments = arguments_of(context, with_directories=True)
        manifest = _manifest(workload, arguments | {"concurrency": load.concurrency[0]}, replays)
        write_document(
            options.json_path,
            RunDocument(manifest=manifest, runs=[done.result for done in replays]),
        )
    if options.records_path is not None:
        _write_records(options.records_path, replays)
    if any(done.result.num_errors and not done.result.num_turns for done in replays):
        context.exit(_EXIT_ALL_FAILED)
    workload.unread.check()


async def _replay_all(
    workload: ReplayWorkload, load: LoadOptions, options: ReplayArguments, errors: Console
) -> list[Replay]:
    stop = asyncio.Event()
    replays: list[Replay] = []
    with _interrupts_set(stop, errors):
        for target in options.targets():
            replays.append(await _replay_one(target, workload, load, stop, errors))
            if stop.is_set():
                break
    return replays


async def _replay_one(
    target: ReplayTarget,
    workload: ReplayWorkload,
    load: LoadOptions,
    stop: asyncio.Event,
    errors: Console,
) -> Replay:
    options = SendOptions(
        concurrency=load.concurrency[0],
        time_scale=load.time_scale,
        token_scale=load.token_scale,
        session_ids=load.session_ids,
        turn_ends=load.turn_ends,
    )
    with _progress(target.label_or_url, workload.num_turns, errors) as on_turn:
        return await replay_sessions(
            target, workload.sessions, options, seed=load.seed, stop=stop, on_turn=on_turn
        )


@contextmanager
def _progress(name: str, num_turns: int, errors: Console) -> Iterator[Callable[[TurnRecord], None]]:
    # The client shares its cores with the engine it measures.
    progress = progress_bar(errors, "turns, {task.fields[failed]} failed", refresh_per_second=2)
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
    workload: ReplayWorkload, arguments: dict[str, Any], replays: list[Replay]
) -> dict[str, Any]:
    reports = workload.reports
    digests = {report.name: report.sha256 for report in reports}
    manifest = run_manifest(
        arguments=arguments,
        runs=[done.result for done in replays],
        digests={**digests, "sessions": sessions_digest(workload.sessions)},
    )
    return {
        **manifest,
        "models": [done.model for done in replays],
        "known_gap_defect": [report.name for report in reports if report.known_gap_defect],
        "num_corrected_gaps": sum(report.num_corrected_gaps for report in reports),
        "num_negative_values": sum(report.num_negative_values for report in reports),
        "num_skipped": workload.skipped.num_skipped,
        "unread_files": workload.unread.names,
    }


def _write_records(path: Path, replays: list[Replay]) -> None:
    path.unlink(missing_ok=True)
    for done in replays:
        append_turns(path, done.result.policy, done.records.turns)


def _print_errors(done: Replay, errors: Console) -> None:
    """Print how many turns failed in each way, with the first error of each."""
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
