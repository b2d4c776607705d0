"""Sweeps in this process, in other processes and on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.core.results import RunResult
from holdfast.core.run_summary import summarize_run
from holdfast.errors import HoldfastError
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile_file import load_profile
from holdfast.sim.sweep import sweep
from holdfast.traces.selection import SessionSelection


def plans(num: int) -> list[RunPlan]:
    workload = Workload(Path("nowhere"), SessionSelection())
    profile = load_profile("cpu-tiny")
    options = SimulationOptions(1)
    return [RunPlan("holdfast", n, workload, options, profile, 1024, 32) for n in range(num)]


def echo(plan: RunPlan) -> RunResult:
    return summarize_run(
        [], [], policy=plan.policy, seed=plan.seed, concurrency=1, makespan_s=1.0, partial=False
    )


def fail(plan: RunPlan) -> RunResult:
    if plan.seed == 1:
        raise HoldfastError("the second one fails")
    return echo(plan)


@pytest.fixture(params=["here", "processes", "ray"])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of `sweep` for each kind of process."""
    if request.param == "here":
        return {"num_jobs": 1}
    pytest.importorskip("ray" if request.param == "ray" else "joblib")
    return {"num_jobs": 2, "on_ray": request.param == "ray"}


def test_results_have_the_index_of_their_plan(where: dict[str, Any]) -> None:
    found = dict(sweep(plans(4), echo, **where))
    assert {index: result.seed for index, result in found.items()} == {0: 0, 1: 1, 2: 2, 3: 3}


def test_failing_run_ends_sweep_with_its_error(where: dict[str, Any]) -> None:
    with pytest.raises(HoldfastError, match="the second one fails"):
        list(sweep(plans(4), fail, **where))
