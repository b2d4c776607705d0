"""Prefetches and turns that need the same few blocks: every turn ends."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


@pytest.mark.timeout(180)
def test_prefetches_leave_blocks_to_turns_in_a_small_cache(tmp_path: Path) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")
    from holdfast.sim.load import SimulationOptions
    from holdfast.sim.plan import RunPlan, Workload
    from holdfast.sim.profile_file import load_profile
    from holdfast.traces.selection import SessionSelection
    from holdfast.traces.writers.canonical import write_canonical
    from holdfast.vllm.simulator.run import simulate
    from holdfast.workload.workflows.kinds import WORKFLOWS
    from holdfast.workload.workflows.sessions import iterate_workflow

    path = tmp_path / "peer.jsonl"
    sessions = list(islice(iterate_workflow(WORKFLOWS["peer"], 0, name="peer"), 4))
    with path.open("wb") as file:
        write_canonical(sessions, file)
    result = simulate(
        RunPlan(
            policy="holdfast",
            seed=0,
            workload=Workload(path, SessionSelection()),
            options=SimulationOptions(concurrency=1, agent_ids=True),
            profile=load_profile("h100-llama3.1-8b"),
            kv_tokens=300 * 16,
            block_tokens=16,
            host_tokens=600 * 16,
        )
    )
    assert result.num_turns == sum(len(session.turns) for session in sessions)
    assert result.prefetches is not None
    assert result.prefetches["used"] > 0
