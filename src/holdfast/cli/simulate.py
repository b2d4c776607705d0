"""`holdfast simulate`: what policies would gain on given traces, on given hardware."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.cli.lists import names, whole_numbers
from holdfast.cli.load_warnings import warn_of_too_few
from holdfast.cli.traces_source import LENIENT, Skipped, Unread
from holdfast.config import load_config
from holdfast.core.results import RunDocument, RunResult
from holdfast.report.document import write_document
from holdfast.report.manifest import run_manifest
from holdfast.report.page import require_plots
from holdfast.report.policy_ranking import stand
from holdfast.report.policy_ranking_html import write_policy_ranking_html
from holdfast.report.policy_ranking_table import policy_ranking_table
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile, profile_names
from holdfast.sim.simulation import SimulationOptions
from holdfast.sim.sweep import sweep
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import FileReport
from holdfast.traces.record import Session
from holdfast.traces.selection import Selection, SessionSelection

__all__ = ["simulate"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_FILE_COLUMNS = 120
_DEFAULT_POLICIES = "stateless,vllm-default,holdfast,clairvoyant"


@click.command(short_help="What policies would gain on your traces, without a GPU.")
@click.option(
    "--traces",
    type=click.Path(exists=True, path_type=Path),
    help="File or directory of sessions.  [default: generated ones]",
)
@click.option(
    "--profile",
    "profile_name",
    default="h100-llama3.1-8b",
    show_default=True,
    help=f"What the hardware costs: {', '.join(profile_names())}, or a file.",
)
@click.option(
    "--kv-tokens",
    callback=whole_numbers,
    metavar="N,...",
    help="Sizes of the KV cache, comma-separated.  [default: the profile's]",
)
@click.option(
    "--host-tokens",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Size of a host-memory tier below the KV cache, on vLLM's own offloading (0.32 or newer).",
)
@click.option(
    "--disk-tokens",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Size of a disk below the host-memory tier; needs --host-tokens.",
)
@click.option(
    "--policies",
    callback=names,
    metavar="NAME,...",
    default=_DEFAULT_POLICIES,
    show_default=True,
    help="Comma-separated; `holdfast policies` lists them.",
)
@click.option(
    "--concurrency",
    callback=whole_numbers,
    metavar="N,...",
    default="8",
    show_default=True,
    help="Sessions live at once, comma-separated.",
)
@click.option("--open-loop", is_flag=True, help="Start sessions at their recorded times instead.")
@click.option("--sessions", "num_sessions", type=click.IntRange(min=1), help="Sessions in all.")
@click.option("--gap-cap-s", type=click.FloatRange(min=0), help="Cut recorded gaps to this.")
@click.option(
    "--max-model-len",
    type=click.IntRange(min=2),
    help="Leave out sessions that outgrow this many tokens.  [default: the smallest cache]",
)
@click.option("--time-scale", type=click.FloatRange(min=0), default=1.0, show_default=True)
@click.option(
    "--token-scale", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True
)
@click.option(
    "--block-size",
    "block_tokens",
    type=click.IntRange(min=1),
    help="Tokens in a KV block.  [default: those of a trace's block]",
)
@LENIENT
@click.option("--seeds", "num_seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first.")
@click.option(
    "--warm-up",
    "num_warm_up",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Run so many of the sessions first, all at once; they do not count, but teach Holdfast.",
)
@click.option("--session-ids", is_flag=True, help="Requests carry their session.")
@click.option(
    "--turn-ends/--no-turn-ends",
    default=True,
    show_default=True,
    help="Requests say what will end the turn, in place of the text of an answer.",
)
@click.option(
    "--holdfast-config",
    "config_path",
    type=_FILE,
    help="TOML file with a [holdfast] table: settings of every policy, as for `serve`.",
)
@click.option(
    "--jobs",
    "num_jobs",
    type=click.IntRange(min=1),
    help="Processes at once.  [default: one a core, with --ray all of the cluster's]",
)
@click.option("--ray", "on_ray", is_flag=True, help="Run on a Ray cluster.")
@click.option("--json", "json_path", type=_FILE, help="Write the results here.")
@click.option("--html", "html_path", type=_FILE, help="Write a page with plots here.")
def simulate(**arguments: Any) -> None:
    """Run sessions through vLLM's own scheduler on a virtual clock, under several policies.

    Every policy gets the same sessions; no model runs, engine steps take the time that the profile
    says. Needs vLLM (its CPU build is enough).
    """
    from holdfast.policies.registry import policy_class
    from holdfast.vllm.offload.arguments import check_offloading
    from holdfast.vllm.simulator.run import simulate as simulate_run
    from holdfast.vllm.versions import engine_version

    engine_version()
    if arguments["host_tokens"]:
        check_offloading("--host-tokens")
    if arguments["html_path"] is not None:
        require_plots()
    console = Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS)
    errors = Console(stderr=True)
    for name in arguments["policies"]:
        policy_class(name)
    profile = load_profile(arguments["profile_name"])
    arguments["profile_name"] = Path(arguments["profile_name"]).name
    arguments["settings"] = _settings(arguments["config_path"])
    traces = _Traces(errors)
    plans = _plans(arguments, profile, traces)
    on_ray: bool = arguments["on_ray"]
    num_jobs = arguments["num_jobs"] or (None if on_ray else min(len(plans), _num_cores()))
    results: dict[int, RunResult] = {}
    try:
        with _progress(len(plans), errors) as on_result:
            for index, result in sweep(plans, simulate_run, num_jobs=num_jobs, on_ray=on_ray):
                results[index] = result
                on_result(plans[index])
    finally:
        _report([results[i] for i in sorted(results)], arguments, traces, profile, console)
    traces.unread.check()


@dataclass(slots=True)
class _Traces:
    """What reading the sessions of each seed brought to light."""

    errors: Console
    skipped: Skipped = field(init=False)
    unread: Unread = field(init=False)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.skipped, self.unread = Skipped(self.errors), Unread(self.errors)

    def sessions(self, workload: Workload, seed: int) -> Sequence[Session]:
        """The sessions of one seed."""
        reports: list[FileReport] = []
        selected = workload.sessions(seed, reports.append, self.skipped, self.unread)
        self.digests.update({report.name: report.sha256 for report in reports})
        self.digests[f"sessions-{seed}"] = sessions_digest(selected.sessions)
        _say(seed, selected, self.errors)
        return selected.sessions


def _plans(arguments: dict[str, Any], profile: CostProfile, traces: _Traces) -> list[RunPlan]:
    """Every combination; the slowest kinds of run first."""
    sizes: tuple[int, ...] = arguments["kv_tokens"] or (profile.kv_tokens,)
    workload = Workload(
        arguments["traces"],
        SessionSelection(
            num_sessions=arguments["num_sessions"],
            gap_cap_s=arguments["gap_cap_s"],
            max_model_len=arguments["max_model_len"] or min(sizes),
            token_scale=arguments["token_scale"],
        ),
        is_lenient=arguments["lenient"],
    )
    first_seed = arguments["seed"]
    seeds = range(first_seed, first_seed + arguments["num_seeds"])
    sessions = {seed: traces.sessions(workload, seed) for seed in seeds}
    traces.skipped.say()
    block_tokens = arguments["block_tokens"] or max(
        1, round(sessions[first_seed][0].block_size_tokens * arguments["token_scale"])
    )
    loads = (None,) if arguments["open_loop"] else arguments["concurrency"]
    for load in loads:
        warn_of_too_few(min(map(len, sessions.values())), load or 0, traces.errors)
    plans = [
        RunPlan(
            policy=policy,
            seed=seed,
            workload=workload,
            options=SimulationOptions(
                concurrency=concurrency,
                time_scale=arguments["time_scale"],
                token_scale=arguments["token_scale"],
                session_ids=arguments["session_ids"],
                turn_ends=arguments["turn_ends"],
            ),
            profile=profile,
            kv_tokens=kv_tokens,
            block_tokens=block_tokens,
            settings=arguments["settings"],
            num_warm_up=arguments["num_warm_up"],
            host_tokens=arguments["host_tokens"],
            disk_tokens=arguments["disk_tokens"],
        )
        for concurrency in sorted(loads, key=lambda n: -(n or 0))
        for policy in arguments["policies"]
        for kv_tokens in sizes
        for seed in seeds
    ]
    for plan in plans:
        plan.check(sessions[plan.seed])
    return plans


def _settings(path: Path | None) -> dict[str, object]:
    """The settings in a file; what a simulation decides itself is left out."""
    if path is None:
        return {}
    settings = asdict(load_config(path, {}))
    for own in ("policy", "decision_log", "learned_file", "strict"):
        del settings[own]
    return settings


def _say(seed: int, selected: Selection, errors: Console) -> None:
    num_turns = sum(len(session.turns) for session in selected.sessions)
    left_out = f", {selected.num_outgrown} left out as too long" if selected.num_outgrown else ""
    errors.print(
        f"seed {seed}: {len(selected.sessions)} sessions, {num_turns} turns{left_out}",
        highlight=False,
    )


def _report(
    runs: Sequence[RunResult],
    arguments: dict[str, Any],
    traces: _Traces,
    profile: CostProfile,
    console: Console,
) -> None:
    if not runs:
        return
    console.print(policy_ranking_table(stand(runs)))
    manifest = run_manifest(
        # Names only: where the files lie says nothing about what was measured.
        arguments={
            name: value.name if isinstance(value, Path) else value
            for name, value in arguments.items()
        },
        runs=runs,
        digests=traces.digests,
        profile=profile.name,
    )
    manifest["num_skipped"] = traces.skipped.num_skipped
    manifest["unread_files"] = traces.unread.names
    if arguments["json_path"] is not None:
        write_document(arguments["json_path"], RunDocument(manifest=manifest, runs=list(runs)))
    if arguments["html_path"] is not None:
        write_policy_ranking_html(arguments["html_path"], runs, manifest)


@contextmanager
def _progress(num_runs: int, errors: Console) -> Iterator[Callable[[RunPlan], None]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        console=errors,
    )
    with progress:
        task = progress.add_task("simulating", total=num_runs)

        def on_result(plan: RunPlan) -> None:
            progress.update(task, advance=1, description=f"{plan.policy}, seed {plan.seed}")

        yield on_result


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
