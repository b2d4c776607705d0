"""Makes the plan of `holdfast plan`: estimates, simulates, warns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from rich.console import Console

from holdfast.cli.plan_inputs import PlanInput, read_input
from holdfast.cli.plan_options import PlanArguments
from holdfast.cli.progress import progress_bar
from holdfast.core.capacity import Capacity, CapacityPlan
from holdfast.core.results import RunResult
from holdfast.core.window import Window
from holdfast.report.manifest import run_manifest
from holdfast.report.plan_text import plan_sentence
from holdfast.sim.capacity import (
    FITS_SHARE,
    HALF_SHARE,
    MOST_SESSIONS,
    MOST_TURNS,
    estimate_crossing,
    estimated_curve,
)
from holdfast.sim.capacity_runs import CapacityRuns
from holdfast.sim.hit_estimate import CacheSize, estimate_hits
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.turn_mix import TurnMix
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection

__all__ = ["WINDOW", "capacity_run_plan", "made_plan", "seeded_worker"]

_RULE: Final = (0.75, 0.87)
_FEW_SESSIONS: Final = 30
_MUCH_SHARED: Final = 0.05
_CURVE_WIDTH: Final = 1.6  # times the cliff
_MOST_TIMES: Final = 3
_MID_SESSION: Final = (0.25, 0.75)
WINDOW: Final = Window(900.0, 1800.0)
"""The part of a simulated run that counts; before it, first sessions are replaced by others."""


def made_plan(
    arguments: PlanArguments, errors: Console, manifest_arguments: dict[str, Any]
) -> CapacityPlan:
    """Read the traces, the study or the engine, and plan; prints progress.

    Raises:
        TraceError: A file cannot be read.
        ConfigError: Too few sessions fit the cache, or the input does not tell enough.
        EndpointError: The engine cannot be read.
    """
    given = read_input(arguments, errors)
    kv_tokens, sample = given.kv_tokens, given.sample
    mix = TurnMix.of_sample(sample, kv_tokens, arguments.gap_cap_s)
    capacities = _estimated(arguments, given, mix)
    runs: list[RunResult] = []
    if arguments.simulate:
        sessions = given.sessions()
        first = capacity_run_plan(given.profile, kv_tokens, sessions, arguments.gap_cap_s)
        capacities = _simulated(
            arguments, first, sessions, capacities, given.host_tokens, errors, runs
        )
    num_sessions = sample.num_sessions - mix.num_outgrown
    made = CapacityPlan(
        sentence="",
        profile=given.profile.name,
        kv_tokens=kv_tokens,
        host_tokens=given.host_tokens,
        num_developers=arguments.num_developers,
        num_sessions=num_sessions,
        num_outgrown=mix.num_outgrown,
        mean_prompt_tokens=mix.mean_prompt_tokens,
        best_hit_ratio=mix.best_hit_ratio,
        rule=(
            _RULE[0] * kv_tokens / mix.mean_prompt_tokens,
            _RULE[1] * kv_tokens / mix.mean_prompt_tokens,
        ),
        capacities=capacities,
        warnings=[*_warnings(given, mix, num_sessions, capacities), *given.warnings],
        manifest=run_manifest(
            arguments=manifest_arguments,
            runs=runs,
            digests=given.digests,
            profile=given.profile.name,
        ),
        source=given.source,
        observed=given.observed,
    )
    given.check()
    return msgspec.structs.replace(made, sentence=plan_sentence(made))


def _estimated(arguments: PlanArguments, given: PlanInput, mix: TurnMix) -> list[Capacity]:
    profile = given.profile
    sizes = {"stock vLLM": CacheSize(given.kv_tokens)}
    if given.host_tokens:
        sizes["stock vLLM, host tier"] = CacheSize(given.kv_tokens, given.host_tokens)
    found = []
    for setup, size in sizes.items():
        fits = estimate_crossing(mix, profile, size, FITS_SHARE)
        cliff = estimate_crossing(mix, profile, size, HALF_SHARE)
        most = MOST_SESSIONS
        engines = Capacity.engines_for(arguments.num_developers, fits, most)
        at = cliff.median if cliff else float(most)
        decoding = estimate_hits(mix.thinned(MOST_TURNS), profile, size, at).num_decoding
        work = (1, round(mix.mean_prompt_tokens))
        uncovered = not profile.covers([work] * round(decoding))
        curve = estimated_curve(mix, profile, size, _CURVE_WIDTH * at)
        found.append(Capacity(setup, "estimate", fits, cliff, most, engines, uncovered, curve))
    return found


def capacity_run_plan(
    profile: CostProfile, kv_tokens: int, sessions: Sequence[Session], gap_cap_s: float
) -> RunPlan:
    """The run that a search repeats at other loads and seeds, on stock vLLM."""
    return RunPlan(
        policy="vllm-default",
        seed=0,
        workload=Workload(None, SessionSelection(gap_cap_s=gap_cap_s)),
        options=SimulationOptions(concurrency=1, mid_session=_MID_SESSION, window=WINDOW),
        profile=profile,
        kv_tokens=kv_tokens,
        block_tokens=sessions[0].block_size_tokens,
    )


def _simulated(
    arguments: PlanArguments,
    first: RunPlan,
    sessions: Sequence[Session],
    estimates: Sequence[Capacity],
    host_tokens: int,
    errors: Console,
    runs: list[RunResult],
) -> list[Capacity]:
    """The estimates, each with what simulated runs found, and Holdfast's."""
    from holdfast.vllm.versions import engine_version

    engine_version()
    worker = seeded_worker(sessions, first.kv_tokens)
    seeds = range(arguments.seed, arguments.seed + arguments.num_seeds)
    found = []
    with progress_bar(errors, "runs") as progress:
        task = progress.add_task("simulating", total=None)

        def on_run(result: RunResult) -> None:
            runs.append(result)
            at = f"{result.policy}, {result.concurrency} at once, seed {result.seed}"
            progress.update(task, advance=1, description=at)

        for estimate in estimates:
            found.append(estimate)
            tier = host_tokens if "host" in estimate.setup else 0
            guess = estimate.cliff.median if estimate.cliff else estimate.searched_to
            for policy, setup in (
                ("vllm-default", estimate.setup),
                ("holdfast", estimate.setup.replace("stock vLLM", "Holdfast")),
            ):
                plan = replace(first, policy=policy, host_tokens=tier)
                search = CapacityRuns(plan, worker, on_run)
                most = max(round(_MOST_TIMES * guess), 4)
                one = search.capacity(setup, seeds, guess, most, arguments.num_developers)
                found.append(one)
    return found


def seeded_worker(sessions: Sequence[Session], kv_tokens: int) -> Callable[[RunPlan], RunResult]:
    """A worker that runs all sessions that fit, in the order of each plan's seed."""
    from holdfast.bench.simulated_fleet import simulate_fleet

    fitting = SessionSelection(max_model_len=kv_tokens).select(sessions).sessions

    def worker(plan: RunPlan) -> RunResult:
        order = list(fitting)
        random.Random(plan.seed).shuffle(order)
        return simulate_fleet(plan, order)

    return worker


def _warnings(
    given: PlanInput, mix: TurnMix, num_sessions: int, capacities: Sequence[Capacity]
) -> list[str]:
    found = []
    if mix.num_outgrown:
        found.append(
            f"{mix.num_outgrown} sessions outgrow the cache alone and are left out; no engine of "
            "this size serves them."
        )
    if num_sessions < _FEW_SESSIONS:
        found.append(
            f"{num_sessions} sessions are few: others of the same kind can differ by more than "
            "the range given."
        )
    shared_tokens = given.sample.shared_head_tokens
    if shared_tokens > _MUCH_SHARED * mix.mean_prompt_tokens:
        found.append(
            f"Sessions begin with {shared_tokens:,.0f} tokens that others have too, "
            f"{shared_tokens / mix.mean_prompt_tokens:.0%} of the mean prompt. The estimate counts "
            "them for each session, so it is a little low."
        )
    if any(one.uncovered for one in capacities):
        found.append(
            "Loads near the cliff are beyond what the profile was fitted to: step times are "
            "extrapolated."
        )
    if given.host_tokens and given.host_tokens <= given.kv_tokens:
        found.append(
            "The host tier is no larger than the KV cache. It holds copies of what is in the "
            "cache, so it adds little."
        )
    return found
