"""The runs of `holdfast simulate`: every combination of its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from holdfast.cli.load_options import LoadOptions
from holdfast.cli.load_warnings import warn_of_too_few
from holdfast.cli.simulate_options import SimulateArguments
from holdfast.cli.traces_source import Skipped, Unread
from holdfast.config import load_config
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.simulation import SimulationOptions
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
        digests: SHA-256 by name of each file, and of each seed's sessions.
    """

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
        _print_selection(seed, selected, self.errors)
        return selected.sessions


def run_plans(
    load: LoadOptions,
    options: SimulateArguments,
    profile: CostProfile,
    settings: dict[str, object],
    traces: SimulatedTraces,
) -> list[RunPlan]:
    """Plan every load, policy, cache size and seed; the slowest loads first.

    Args:
        load: The load options.
        options: The command's other options.
        profile: What engine steps cost.
        settings: Holdfast's settings, as of `config_settings`.
        traces: Reads the sessions.

    Raises:
        ConfigError: No session is left, or a plan cannot be run.
        TraceError: The traces cannot be read.
    """
    sizes = options.kv_tokens or (profile.kv_tokens,)
    selection = load.selection(max_model_len=min(sizes))
    workload = Workload(load.traces, selection, is_lenient=load.lenient)
    seeds = range(load.seed, load.seed + options.num_seeds)
    sessions = {seed: traces.sessions(workload, seed) for seed in seeds}
    traces.skipped.print_total()
    loads = (None,) if options.open_loop else load.concurrency
    for concurrency in loads:
        warn_of_too_few(min(map(len, sessions.values())), concurrency or 0, traces.errors)
    own_block_tokens = round(sessions[load.seed][0].block_size_tokens * load.token_scale)
    plans = [
        RunPlan(
            policy=policy,
            seed=seed,
            workload=workload,
            options=_simulation_options(load, concurrency),
            profile=profile,
            kv_tokens=kv_tokens,
            block_tokens=options.block_tokens or max(1, own_block_tokens),
            settings=settings,
            num_warm_up=options.num_warm_up,
            host_tokens=options.host_tokens,
            disk_tokens=options.disk_tokens,
        )
        for concurrency in sorted(loads, key=lambda number: -(number or 0))
        for policy in options.policies
        for kv_tokens in sizes
        for seed in seeds
    ]
    for plan in plans:
        plan.check(sessions[plan.seed])
    return plans


def config_settings(path: Path | None) -> dict[str, object]:
    """The settings of a file, without those that the simulation sets itself.

    Raises:
        ConfigError: The file cannot be read, or a setting is wrong.
    """
    if path is None:
        return {}
    settings = asdict(load_config(path, {}))
    return {key: value for key, value in settings.items() if key not in _SET_BY_THE_SIMULATION}


def _simulation_options(load: LoadOptions, concurrency: int | None) -> SimulationOptions:
    return SimulationOptions(
        concurrency=concurrency,
        time_scale=load.time_scale,
        token_scale=load.token_scale,
        session_ids=load.session_ids,
        turn_ends=load.turn_ends,
    )


def _print_selection(seed: int, selected: Selection, errors: Console) -> None:
    num_turns = sum(len(session.turns) for session in selected.sessions)
    left_out = f", {selected.num_outgrown} left out as too long" if selected.num_outgrown else ""
    errors.print(
        f"seed {seed}: {len(selected.sessions)} sessions, {num_turns} turns{left_out}",
        highlight=False,
    )
