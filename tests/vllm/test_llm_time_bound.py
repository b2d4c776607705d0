"""No simulated run is faster than the lower bound on LLM time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from holdfast.core.results import RunResult
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.traces.selection import SessionSelection

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

POLICIES = ("stateless", "vllm-default", "cachewise", "holdfast", "clairvoyant")


def simulate(plan: RunPlan) -> RunResult:
    from holdfast.vllm.simulator.run import simulate as simulate_run

    return simulate_run(plan)


def random_profile(chance: random.Random) -> CostProfile:
    """Costs of any proportions."""
    curve = chance.choice([(), ((500, 1e-4), (4000, 5e-4)), ((500, 1e-3), (4000, 2e-3))])
    max_num_seqs = chance.choice([2, 4, 16])
    return structs.replace(
        load_profile("cpu-tiny"),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=chance.choice([max_num_seqs, 64, 2048]),
        step_base_s=chance.choice([1e-4, 3e-3, 3e-2]),
        prefill_s_per_token=chance.choice([0.0, 1e-5, 1e-3]),
        prefill_s_per_token_context=chance.choice([0.0, 1e-8, 1e-6]),
        decode_s_per_seq=chance.choice([0.0, 1e-4, 1e-3]),
        decode_s_per_context_token=0.0 if curve else chance.choice([0.0, 1e-7, 1e-5]),
        decode_context_s=curve,
        hidden_prefill_tokens=chance.choice([0, 40, 200]),
        sparse_read_s=chance.choice([0.0, 1e-2]),
        sparse_share_per_token=0.06,
        request_overhead_s=chance.choice([0.0, 0.1]),
        request_overhead_s_per_token=chance.choice([0.0, 1e-5]),
    )


def random_plan(seed: int) -> RunPlan:
    """A few short sessions on a cache for one to a few of them."""
    chance = random.Random(seed)
    selection = SessionSelection(6, gap_cap_s=30.0, max_model_len=4000, token_scale=1 / 16)
    return RunPlan(
        policy=POLICIES[seed % len(POLICIES)],
        seed=seed,
        workload=Workload(None, selection),
        options=SimulationOptions(
            chance.choice([1, 3, 6]),
            time_scale=chance.choice([0.01, 0.3]),
            token_scale=1 / 16,
            is_isolated=chance.choice([False, True]),
        ),
        profile=random_profile(chance),
        kv_tokens=chance.choice([4096, 6144]),
        block_tokens=32,
    )


@pytest.mark.parametrize("seed", range(8))
def test_no_run_is_faster_than_the_bound(seed: int) -> None:
    result = simulate(random_plan(seed))
    assert result.session_llm_time_s is not None
    assert result.session_llm_time_bound_s is not None
    assert 0.0 < result.session_llm_time_bound_s <= result.session_llm_time_s.mean * (1 + 1e-9)


@pytest.mark.parametrize(
    "change", [{"idle_cap_s": 1.0}, {"is_tree": True}, {"mid_session": (0.2, 0.8)}]
)
def test_no_bound_where_recorded_gaps_do_not_hold(change: dict[str, Any]) -> None:
    plan = random_plan(1)
    options = replace(plan.options, concurrency=3, **change)
    assert simulate(replace(plan, options=options)).session_llm_time_bound_s is None
