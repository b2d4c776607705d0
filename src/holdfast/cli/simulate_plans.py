"""The runs of `holdfast simulate`: every combination of its options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rich.console import Console

from holdfast.cli.load_options import LoadOptions
from holdfast.cli.load_warnings import warn_of_too_few
from holdfast.cli.scenario_options import ScenarioOptions
from holdfast.cli.simulate_options import SimulateArguments
from holdfast.cli.traces_source import Skipped, Unread
from holdfast.config import load_config
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import FileReport
from holdfast.traces.record import Session
from holdfast.traces.selection import Selection

__all__ = ["SimulatedTraces", "config_settings", "run_plans"]

_SET_BY_THE_SIMULATION = ("policy", "decision_log", "learned_file", "strict")


@dataclass(slots=True)
class SimulatedTraces:
    """Reads the sessions of each seed, and keeps what is known about their files.

    Attributes:
        skipped: Parts of files that were left out.
        unread: Files that could not be read.
        by_seed: The sessions that were read, by seed.
        digests: SHA-256 by name of each file, and of each seed's sessions.
    """

    errors: Console
    skipped: Skipped = field(init=False)
    unread: Unread = field(init=False)
    by_seed: dict[int, Sequence[Session]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.skipped, self.unread = Skipped(self.errors), Unread(self.errors)

    def read(self, workload: Workload, seed: int) -> None:
        """Read the sessions of one seed."""
        reports: list[FileReport] = []
        selected = workload.sessions(seed, reports.append, self.skipped, self.unread)
        self.digests.update({report.name: report.sha256 for report in reports})
        self.digests[f"sessions-{seed}"] = sessions_digest(selected.sessions)
        self.by_seed[seed] = selected.sessions
        _print_selection(seed, selected, self.errors)


def run_plans(
    load: LoadOptions,
    scenario: ScenarioOptions,
    options: SimulateArguments,
    profile: CostProfile,
    settings: dict[str, object],
    traces: SimulatedTraces,
) -> list[RunPlan]:
    """Plan every combination of the options; the slowest loads first.

    Args:
        load: The load options.
        scenario: The options that shape the load.
        options: The command's other options.
        profile: What engine steps cost.
        settings: Holdfast's settings, as of `config_settings`.
        traces: Reads the sessions.

    Raises:
        ConfigError: No session is left, or a plan cannot be run.
        TraceError: The traces cannot be read.
    """
    window, sizes = scenario.window, options.kv_tokens or (profile.kv_tokens,)
    selection = load.selection(
        max_model_len=min(sizes), gap_cap_s=scenario.gap_cap_s, is_tree=scenario.is_tree
    )
    workload = Workload(load.traces, selection, is_lenient=load.lenient)
    seeds = range(load.seed, load.seed + options.num_seeds)
    for seed in seeds:
        traces.read(workload, seed)
    sessions = traces.by_seed
    traces.skipped.print_total()
    loads = (None,) if options.open_loop else load.concurrency
    for concurrency in loads if window is None else ():  # in a window sessions repeat
        warn_of_too_few(min(map(len, sessions.values())), concurrency or 0, traces.errors)
    plan = _first_plan(load, scenario, options, profile, workload)
    if options.block_tokens is None:
        own_tokens = round(sessions[load.seed][0].block_size_tokens * load.token_scale)
        plan = replace(plan, block_tokens=max(1, own_tokens))
    plans = [
        replace(at_load, policy=policy, seed=seed, kv_tokens=kv_tokens, settings=settings)
        for fleet in options.fleets
        for at_load in _at_each_load(replace(plan, fleet=fleet), loads, scenario.session_ends)
        for policy in options.policies
        for kv_tokens in sizes
        for seed in seeds
    ]
    for plan in plans:
        plan.check(sessions[plan.seed])
    return plans


def _first_plan(
    load: LoadOptions,
    scenario: ScenarioOptions,
    options: SimulateArguments,
    profile: CostProfile,
    workload: Workload,
) -> RunPlan:
    """What all runs have in common."""
    return RunPlan(
        policy="",
        seed=load.seed,
        workload=workload,
        options=_simulation_options(load, scenario),
        profile=profile,
        kv_tokens=profile.kv_tokens,
        block_tokens=options.block_tokens or 1,
        num_warm_up=options.num_warm_up,
        host_tokens=options.host_tokens,
        disk_tokens=options.disk_tokens,
        slo=scenario.slo,
    )


def _at_each_load(
    plan: RunPlan, loads: Sequence[int | None], session_ends: Sequence[str]
) -> Iterator[RunPlan]:
    """The plan at every load, the heaviest first, with ends of sessions known or not."""
    for concurrency in sorted(loads, key=lambda number: -(number or 0)):
        for ends in session_ends:
            options = replace(plan.options, concurrency=concurrency, session_ends=ends == "known")
            yield replace(plan, options=options)


def config_settings(path: Path | None) -> dict[str, object]:
    """The settings of a file, without those that the simulation sets itself.

    Raises:
        ConfigError: The file cannot be read, or a setting is wrong.
    """
    if path is None:
        return {}
    settings = asdict(load_config(path, {}))
    return {key: value for key, value in settings.items() if key not in _SET_BY_THE_SIMULATION}


def _simulation_options(load: LoadOptions, scenario: ScenarioOptions) -> SimulationOptions:
    return SimulationOptions(
        concurrency=load.concurrency[0],
        time_scale=load.time_scale,
        token_scale=load.token_scale,
        output_scale=scenario.output_scale,
        session_ids=load.session_ids,
        agent_ids=scenario.agent_ids,
        tool_events=scenario.tool_events,
        graphs=scenario.graphs,
        turn_ends=load.turn_ends,
        is_tree=scenario.is_tree,
        is_isolated=bool(scenario.isolate),
        mid_session=scenario.mid_session,
        num_warm_up_turns=scenario.num_warm_up_turns,
        idle_cap_s=scenario.idle_cap_s,
        window=scenario.window,
    )


def _print_selection(seed: int, selected: Selection, errors: Console) -> None:
    num_turns = sum(len(session.turns) for session in selected.sessions)
    left_out = f", {selected.num_outgrown} left out as too long" if selected.num_outgrown else ""
    errors.print(
        f"seed {seed}: {len(selected.sessions)} sessions, {num_turns} turns{left_out}",
        highlight=False,
    )
