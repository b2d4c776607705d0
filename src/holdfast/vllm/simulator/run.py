"""One simulated run, from its plan to its result; what a worker process executes.

Process: a worker of a sweep, or the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from msgspec import UNSET, structs

from holdfast.config import load_config
from holdfast.core.results import Counters, RunResult, ratio
from holdfast.core.run_summary import summarize_run
from holdfast.core.window import Window
from holdfast.errors import ConfigError
from holdfast.policies.engine_modes import ENGINE_MODES, STOCK
from holdfast.policies.registry import policy_spec
from holdfast.sim.clock import VirtualClock
from holdfast.sim.fleet import Fleet, Router
from holdfast.sim.llm_time_bound import llm_time_bound_s
from holdfast.sim.load import SimulationOptions
from holdfast.sim.oracle import TraceOracle
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.simulation import Simulation, SimulationRecords
from holdfast.traces.record import Session
from holdfast.vllm.simulator.engine import SimulatedEngine
from holdfast.vllm.simulator.workerless import EngineShape

__all__ = ["RouterOf", "SimulatedRun", "run_plan", "simulate"]

RouterOf = Callable[[RunPlan], Router | None]

_CACHED_WORKLOADS = 4
_ADVISING = ("holdfast.vllm.reports", "holdfast.vllm.offload.transfer_gate")


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What a run recorded.

    Attributes:
        plan: What was run.
        sessions: Its sessions.
        records: Its turns, sessions and counters; the counters cover the plan's window.
    """

    plan: RunPlan
    sessions: Sequence[Session]
    records: SimulationRecords

    def result(self) -> RunResult:
        """Figures of the plan's window, or of all of the run. Pure."""
        records, plan = self.records, self.plan
        result = self._summary(plan.options.window, records.counters, records.output_tokens)
        return structs.replace(
            result,
            uncovered_share=ratio(records.uncovered_s, result.makespan_s),
            session_llm_time_bound_s=_llm_time_bound_s(plan, self.sessions),
        )

    def result_in(self, window: Window) -> RunResult:
        """Figures of another part of the run, inside the plan's window. Pure.

        They come from turns alone: the engine's counters are not known for it.
        """
        return self._summary(window, Counters(), None)

    def _summary(
        self, window: Window | None, counters: Counters, num_output_tokens: int | None
    ) -> RunResult:
        plan, records = self.plan, self.records
        kv_tokens = plan.cached_tokens * plan.fleet.num_engines
        result = summarize_run(
            records.turns,
            records.sessions,
            policy=plan.policy,
            seed=plan.seed,
            concurrency=plan.options.concurrency or len(self.sessions),
            makespan_s=records.makespan_s,
            partial=False,
            counters=structs.replace(counters, kv_tokens=kv_tokens),
            window=window,
            slo=plan.slo,
            num_output_tokens=num_output_tokens,
        )
        ends = "known" if plan.options.session_ends else "unknown"
        return structs.replace(result, session_ends=ends, fleet=str(plan.fleet) or UNSET)


def simulate(
    plan: RunPlan,
    sessions: Sequence[Session] | None = None,
    router_of: RouterOf | None = None,
) -> RunResult:
    """Run a plan on vLLM's scheduler; deterministic but for the measured CPU times.

    A policy with variants is run with each. The one with the shortest mean LLM time a session
    counts, in a window the one with the most output tokens a second.

    Args:
        plan: What to run.
        sessions: Those of the plan's workload and seed; None reads them.
        router_of: Makes the router of a run; None for plans of one engine.

    Raises:
        HoldfastError: The plan cannot be run.
    """
    variants = policy_spec(plan.policy).variants
    with _without_advice():
        runs = (_run_variant(plan, variant, sessions, router_of) for variant in variants)
        return min((run.result() for run in runs), key=_shortfall)


def run_plan(plan: RunPlan, sessions: Sequence[Session] | None = None) -> SimulatedRun:
    """Run a plan with the first variant of its policy, and keep its records.

    Args:
        plan: What to run.
        sessions: Sessions to run; None takes those of the plan's workload.

    Raises:
        HoldfastError: The plan cannot be run.
    """
    with _without_advice():
        return _run_variant(plan, policy_spec(plan.policy).variants[0], sessions)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Leave out warnings to an engine's operator: the results say how the engine was."""
    logging.getLogger("vllm").setLevel(logging.ERROR)
    levels = {logger: logger.level for logger in map(logging.getLogger, _ADVISING)}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _run_variant(
    plan: RunPlan,
    variant: dict[str, object],
    sessions: Sequence[Session] | None = None,
    router_of: RouterOf | None = None,
) -> SimulatedRun:
    if sessions is None:
        sessions = _sessions(plan.workload, plan.seed)
    plan.check(sessions)
    clock = VirtualClock()
    engines = _engines(plan, variant, sessions, clock)
    router = None if router_of is None else router_of(plan)
    if router is None and len(engines) > 1:
        raise ConfigError("several engines need a router")
    if plan.num_warm_up:
        chosen = sessions[: plan.num_warm_up]
        warming = Fleet(engines, plan.profile, clock, router, speeds=plan.fleet.speeds)
        _run(plan, chosen, plan.options.all_at_once(len(chosen)), warming)
        for engine in engines:
            engine.drop_content()
    dies_at_s = float("inf") if plan.fleet.dies_at_s is None else plan.fleet.dies_at_s
    fleet = Fleet(
        *(engines, plan.profile, clock, router),
        speeds=plan.fleet.speeds,
        dies_at_s=clock.now_s + dies_at_s,
    )
    return SimulatedRun(plan, sessions, _run(plan, sessions, plan.options, fleet))


def _engines(
    plan: RunPlan, variant: dict[str, object], sessions: Sequence[Session], clock: VirtualClock
) -> list[SimulatedEngine]:
    settings = load_config(None, {}, {"policy": plan.policy, **plan.settings, **variant})
    shape = EngineShape(
        num_blocks=_num_blocks(plan, settings.policy, sessions),
        block_size_tokens=plan.block_tokens,
        max_num_seqs=plan.profile.max_num_seqs,
        max_num_batched_tokens=plan.profile.max_num_batched_tokens,
        max_model_len_tokens=plan.kv_tokens,
        host_blocks=plan.host_tokens // plan.block_tokens,
        disk_blocks=plan.disk_tokens // plan.block_tokens,
    )
    oracle = TraceOracle(plan.replays(sessions), plan.options.time_scale, plan.profile.step_base_s)
    return [
        SimulatedEngine(
            *(settings.policy, shape, clock, oracle, settings),
            plan.host_block_s,
            plan.disk_block_s,
        )
        for _ in range(plan.fleet.num_engines)
    ]


def _llm_time_bound_s(plan: RunPlan, sessions: Sequence[Session]) -> float | None:
    """Lower bound on the LLM time of whole sessions; None where there is none."""
    options = plan.options
    is_partial = options.window is not None or options.mid_session is not None
    has_own_gaps = not options.is_tree and options.idle_cap_s is None
    has_infinite_cache = ENGINE_MODES.get(plan.policy, STOCK).has_infinite_cache
    is_partial |= str(plan.fleet) != ""  # the bound is of one engine
    if is_partial or not has_own_gaps or options.num_warm_up_turns or has_infinite_cache:
        return None
    return llm_time_bound_s(
        plan.replays(sessions),
        plan.profile,
        plan.kv_tokens,
        options.concurrency,
        time_scale=options.time_scale,
        has_tiers=plan.host_tokens > 0,
    )


def _run(
    plan: RunPlan, sessions: Sequence[Session], options: SimulationOptions, fleet: Fleet
) -> SimulationRecords:
    return Simulation(fleet, plan.replays(sessions), options, seed=plan.seed).run()


def _num_blocks(plan: RunPlan, policy: str, sessions: Sequence[Session]) -> int:
    if ENGINE_MODES.get(policy, STOCK).has_infinite_cache:
        return plan.num_blocks + plan.num_blocks_ever(sessions)
    return plan.num_blocks


@lru_cache(maxsize=_CACHED_WORKLOADS)
def _sessions(workload: Workload, seed: int) -> Sequence[Session]:
    return workload.sessions(seed).sessions


def _shortfall(result: RunResult) -> float:
    """What the best variant has least of: LLM time, in a window lost throughput."""
    if result.window_s is not None:
        return -(result.output_tokens_per_s or 0.0)
    return float("inf") if result.session_llm_time_s is None else result.session_llm_time_s.mean
