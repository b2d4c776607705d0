"""Simulated runs of several engines with a router."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.bench.routers import fleet_router
from holdfast.core.results import RunResult
from holdfast.sim.plan import RunPlan
from holdfast.traces.record import Session

__all__ = ["simulate_fleet"]


def simulate_fleet(plan: RunPlan, sessions: Sequence[Session] | None = None) -> RunResult:
    """Run a plan on vLLM's schedulers and its router; what a sweep executes.

    Args:
        plan: What to run.
        sessions: Those of the plan's workload and seed; None reads them.

    Raises:
        HoldfastError: The plan cannot be run.
    """
    from holdfast.vllm.simulator.run import simulate

    return simulate(plan, sessions, fleet_router)
