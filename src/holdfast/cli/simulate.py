"""`holdfast simulate`: what policies would gain on given traces and hardware."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from holdfast.cli.load_options import LOADS, MAX_MODEL_LEN, SEED, SESSIONS, LoadOptions
from holdfast.cli.load_warnings import warn_of_uncovered_steps
from holdfast.cli.options import arguments_of, takes
from holdfast.cli.progress import progress_bar
from holdfast.cli.scenario_options import ScenarioOptions
from holdfast.cli.simulate_options import SimulateArguments
from holdfast.cli.simulate_plans import SimulatedTraces, config_settings, run_plans
from holdfast.core.results import RunDocument, RunResult
from holdfast.report.bound_distance import best_rules
from holdfast.report.comparison import compare
from holdfast.report.document import write_document
from holdfast.report.html import write_html
from holdfast.report.manifest import run_manifest
from holdfast.report.page import require_plots
from holdfast.report.simulation_report import (
    simulation_caption,
    simulation_page,
    simulation_tables,
)
from holdfast.report.terminal import terminal_tables
from holdfast.sim.plan import RunPlan
from holdfast.sim.profile_file import load_profile
from holdfast.sim.sweep import sweep

__all__ = ["simulate"]

_FILE_COLUMNS = 120


@click.command(short_help="What policies would gain on your traces, without a GPU.")
@takes(
    LoadOptions,
    ScenarioOptions,
    SimulateArguments,
    concurrency=LOADS,
    num_sessions=SESSIONS.but(help="Sessions in all.  [default: every one; 60 if generated]"),
    max_model_len=MAX_MODEL_LEN.but(
        help="Leave out sessions that outgrow this many tokens.  [default: the smallest KV cache]"
    ),
    seed=SEED.but(help="The first seed; it decides which sessions run, and in which order."),
)
def simulate(load: LoadOptions, scenario: ScenarioOptions, options: SimulateArguments) -> None:
    """Run sessions through vLLM's own scheduler on a virtual clock.

    Every policy gets the same sessions. No model runs: engine steps take the time that the profile
    gives. Needs vLLM (its CPU build is enough).
    """
    from holdfast.bench.simulated_fleet import simulate_fleet

    _check(options)
    console = Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS)
    errors = Console(stderr=True)
    profile = load_profile(options.profile_name)
    settings = config_settings(options.config_path)
    traces = SimulatedTraces(errors)
    plans = run_plans(load, scenario.resolved(), options, profile, settings, traces)
    arguments = arguments_of(click.get_current_context()) | {
        "profile_name": Path(options.profile_name).name,
        "settings": settings,
    }
    results: dict[int, RunResult] = {}
    num_jobs = options.jobs_for(len(plans))

    def simulate_here(plan: RunPlan) -> RunResult:
        return simulate_fleet(plan, traces.by_seed[plan.seed])

    worker = (
        simulate_here if num_jobs == 1 else simulate_fleet
    )  # other processes read for themselves
    try:
        with _progress(len(plans), errors) as on_result:
            for index, result in sweep(plans, worker, num_jobs=num_jobs, on_ray=options.on_ray):
                results[index] = result
                on_result(plans[index])
    finally:
        runs = best_rules(results[index] for index in sorted(results))
        if runs:
            manifest = _manifest(arguments, runs, traces, profile.name)
            _report(runs, manifest, options, console)
            warn_of_uncovered_steps(runs, profile, errors)
    traces.unread.check()


def _check(options: SimulateArguments) -> None:
    """Fail before a long computation rather than after it."""
    from holdfast.policies.registry import policy_spec
    from holdfast.vllm.offload.arguments import check_offloading
    from holdfast.vllm.versions import engine_version

    engine_version()
    if options.host_tokens:
        check_offloading("--host-tokens")
    if options.html_path is not None:
        require_plots()
    for name in options.policies:
        policy_spec(name)


def _manifest(
    arguments: dict[str, Any], runs: Sequence[RunResult], traces: SimulatedTraces, profile: str
) -> dict[str, Any]:
    manifest = run_manifest(arguments=arguments, runs=runs, digests=traces.digests, profile=profile)
    manifest["num_skipped"] = traces.skipped.num_skipped
    manifest["unread_files"] = traces.unread.names
    return manifest


def _report(
    runs: Sequence[RunResult],
    manifest: dict[str, Any],
    options: SimulateArguments,
    console: Console,
) -> None:
    comparison = compare(runs)
    console.print(terminal_tables(simulation_tables(comparison), simulation_caption(comparison)))
    if options.json_path is not None:
        write_document(options.json_path, RunDocument(manifest=manifest, runs=list(runs)))
    if options.html_path is not None:
        write_html(options.html_path, simulation_page(runs), manifest)


@contextmanager
def _progress(num_runs: int, errors: Console) -> Iterator[Callable[[RunPlan], None]]:
    progress = progress_bar(errors, "runs")
    with progress:
        task = progress.add_task("simulating", total=num_runs)

        def on_result(plan: RunPlan) -> None:
            progress.update(task, advance=1, description=f"{plan.policy}, seed {plan.seed}")

        yield on_result
