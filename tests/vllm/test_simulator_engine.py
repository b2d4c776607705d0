"""Simulated runs on vLLM's own scheduler."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from itertools import pairwise
from logging import WARNING, getLogger
from typing import Any

import pytest

from holdfast.core.results import RunResult
from holdfast.core.session import Session
from holdfast.core.window import Window
from holdfast.errors import ConfigError, EngineError
from holdfast.policies.ours.return_rate_eviction import ReturnRateEviction
from holdfast.policies.registry import policy_names
from holdfast.runtime import watchdog
from holdfast.sim import fleet
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile_file import load_profile, profile_names
from holdfast.traces.selection import SessionSelection
from holdfast.vllm.offload.arguments import check_offloading
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]

MEASURED = {"policy_cpu_s": None, "scheduler_cpu_s": None}


def simulate(plan: RunPlan) -> RunResult:
    from holdfast.vllm.simulator.run import simulate as simulate_run

    return simulate_run(plan)


def plan(policy: str, **changes: Any) -> RunPlan:
    """Eight generated sessions, six at once, on a cache for about three of them."""
    usual = RunPlan(
        policy=policy,
        seed=3,
        workload=Workload(
            None, SessionSelection(8, gap_cap_s=30.0, max_model_len=6000, token_scale=1 / 16)
        ),
        options=SimulationOptions(6, time_scale=0.02, token_scale=1 / 16),
        profile=load_profile("cpu-tiny"),
        kv_tokens=8192,
        block_tokens=32,
    )
    return replace(usual, **changes)


def figures(result: RunResult) -> dict[str, Any]:
    """The figures that must not differ from run to run."""
    return {key: getattr(result, key) for key in result.__struct_fields__} | MEASURED


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_ends_all_sessions(policy: str) -> None:
    result = simulate(plan(policy))
    assert result.num_sessions == 8
    assert result.num_turns > 8
    assert result.fallbacks == 0


@pytest.mark.parametrize("profile", profile_names())
def test_engine_of_every_shipped_profile_builds(profile: str) -> None:
    assert simulate(plan("vllm-default", profile=load_profile(profile))).num_sessions == 8


@pytest.mark.parametrize("policy", ["vllm-default", "holdfast", "marconi"])
def test_run_is_deterministic(policy: str) -> None:
    assert figures(simulate(plan(policy))) == figures(simulate(plan(policy)))


def test_grouped_decode_steps_equal_single_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = simulate(plan("vllm-default"))
    monkeypatch.setattr(fleet, "_MOST_REPEATS", 1)
    single = simulate(plan("vllm-default"))
    assert together.token_hit_ratio == pytest.approx(single.token_hit_ratio, abs=0.01)
    assert together.evicted_blocks == pytest.approx(single.evicted_blocks, rel=0.03)
    assert together.makespan_s == pytest.approx(single.makespan_s, rel=0.02)
    assert together.engine_steps == pytest.approx(single.engine_steps, rel=0.02)


def test_warm_up_is_learned_from_and_not_counted() -> None:
    cold, warm = simulate(plan("vllm-default")), simulate(plan("vllm-default", num_warm_up=2))
    counted = ("num_turns", "token_hit_ratio", "evicted_blocks", "preemptions", "engine_steps")
    assert [getattr(warm, key) for key in counted] == [getattr(cold, key) for key in counted]
    assert warm.makespan_s == pytest.approx(cold.makespan_s)
    taught = simulate(plan("holdfast", num_warm_up=2))
    assert taught.num_turns == cold.num_turns
    assert taught.evicted_blocks != simulate(plan("holdfast")).evicted_blocks


def windowed(**changes: Any) -> RunPlan:
    options = SimulationOptions(
        6, time_scale=0.02, token_scale=1 / 16, window=Window(1.0, 10.0), **changes
    )
    return plan("vllm-default", options=options)


def test_window_counts_only_its_part_of_the_run() -> None:
    result, whole = simulate(windowed()), simulate(plan("vllm-default"))
    assert (result.window_s, result.session_llm_time_s) == (10.0, None)
    assert result.output_tokens_per_s is not None
    assert whole.output_tokens_per_s is not None
    assert 0.3 < result.output_tokens_per_s / whole.output_tokens_per_s < 3
    assert result.evicted_blocks is not None
    assert result.evicted_blocks > 0
    assert result.mean_live_sessions == pytest.approx(6.0, abs=0.01)


def test_advice_to_operators_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("_LEAST_TURNS", "_LEAST_SHARE", "_THRASHES_ABOVE"):
        monkeypatch.setattr(watchdog, limit, 0.0)
    with caplog.at_level("WARNING"):
        simulate(replace(windowed(), policy="holdfast"))
    assert [record.message for record in caplog.records] == []
    assert getLogger("holdfast.vllm.reports").isEnabledFor(WARNING)


def test_isolated_sessions_share_no_prefix() -> None:
    shared, alone = simulate(windowed()), simulate(windowed(is_isolated=True))
    assert alone.recomputed_tokens is not None
    assert (alone.token_hit_ratio or 0.0) < (shared.token_hit_ratio or 0.0)


def test_longer_answers_leave_prompts_as_they_are() -> None:
    once, twice = (
        simulate(replace(usual, options=replace(usual.options, output_scale=scale)))
        for scale in (1.0, 2.0)
        for usual in [plan("vllm-default")]
    )
    assert twice.prompt_tokens == once.prompt_tokens
    assert twice.output_tokens == pytest.approx(2 * once.output_tokens, rel=0.01)


def test_known_session_ends_reach_the_policy() -> None:
    ends = replace(plan("holdfast").options, session_ends=True)
    known, unknown = simulate(plan("holdfast", options=ends)), simulate(plan("holdfast"))
    assert (known.session_ends, unknown.session_ends) == ("known", "unknown")
    assert known.num_turns == unknown.num_turns
    assert known.evicted_blocks != unknown.evicted_blocks


def test_cache_beyond_two_million_tokens() -> None:
    assert simulate(plan("vllm-default", kv_tokens=2_237_040)).evicted_blocks == 0


def test_no_hits_or_evictions_without_a_prefix_cache() -> None:
    result = simulate(plan("stateless"))
    assert (result.token_hit_ratio, result.evicted_blocks) == (0.0, 0)


def test_infinite_cache_evicts_nothing_and_is_fastest() -> None:
    kept = simulate(plan("all-kept"))
    assert kept.evicted_blocks == 0
    assert kept.kv_tokens == simulate(plan("vllm-default")).kv_tokens
    for policy in ("vllm-default", "holdfast", "clairvoyant"):
        other = simulate(plan(policy))
        assert (kept.token_hit_ratio or 0.0) >= (other.token_hit_ratio or 0.0)
        assert kept.session_llm_time_s and other.session_llm_time_s
        assert kept.session_llm_time_s.mean <= other.session_llm_time_s.mean


def test_guard_bounds_the_cost_of_inverted_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evicts the soonest return first; everything else is Holdfast's."""
    rate = ReturnRateEviction.session_priority

    def inverted(priority: ReturnRateEviction, session: Session) -> float:
        right = rate(priority, session)
        if session.state.is_paused and priority.context.trusts_predictions and right > 0.0:
            return 1.0 / right
        return right

    monkeypatch.setattr(ReturnRateEviction, "session_priority", inverted)
    # A load at which the order of victims matters.
    options = SimulationOptions(4, time_scale=0.02, token_scale=1 / 16)
    evicted = {}
    for predictions in ("guarded", "always", "never"):
        settings = {"admission": "fcfs", "predictions": predictions}
        run = plan("holdfast", seed=4, kv_tokens=12288, options=options, settings=settings)
        evicted[predictions] = simulate(run).evicted_blocks or 0.0
    assert evicted["never"] < evicted["guarded"] < evicted["always"]


def test_lru_hits_do_not_drop_with_more_cache() -> None:
    """One session at a time, so that times do not change the order of requests."""
    one = SimulationOptions(1, time_scale=0.02, token_scale=1 / 16)
    ratios = [
        simulate(plan("vllm-default", kv_tokens=size, options=one)).token_hit_ratio or 0.0
        for size in (6144, 8192, 16384, 65536)
    ]
    assert all(small <= large for small, large in pairwise(ratios))


@pytest.mark.parametrize("policy", ["vllm-default", "holdfast", "continuum"])
def test_every_cached_block_is_evicted_or_resident(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.vllm.simulator.engine import SimulatedEngine

    engines = []

    class Watched(SimulatedEngine):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            engines.append(self)
            self.num_stored = 0
            self.pool = self.scheduler.kv_cache_manager.block_pool
            self.store = self.pool.cache_full_blocks
            self.pool.cache_full_blocks = self.count

        def count(self, *args: Any, **named: Any) -> None:
            call = signature(self.store).bind(*args, **named).arguments
            self.num_stored += max(call["num_full_blocks"] - call["num_cached_blocks"], 0)
            self.store(*args, **named)

    monkeypatch.setattr("holdfast.vllm.simulator.run.SimulatedEngine", Watched)
    result = simulate(plan(policy))
    (engine,) = engines
    num_resident = sum(block.block_hash is not None for block in engine.pool.blocks)
    assert result.evicted_blocks
    assert engine.num_stored == result.evicted_blocks + num_resident


def test_policies_agree_in_a_cache_that_holds_all() -> None:
    results = {
        name: figures(simulate(plan(name, kv_tokens=262_144)))
        for name in ("vllm-default", "holdfast", "clairvoyant")
    }
    found = {name: (r["token_hit_ratio"], r["evicted_blocks"]) for name, r in results.items()}
    assert len(set(found.values())) == 1


def test_session_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than the cache of 1,024"):
        simulate(plan("vllm-default", kv_tokens=1024))


@pytest.mark.parametrize("policy", ["vllm-default", "holdfast"])
def test_host_tier_loads_evicted_blocks(policy: str) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        with pytest.raises(EngineError, match=r"0\.32"):
            check_offloading("--host-tokens")
        return
    without, tiered = simulate(plan(policy)), simulate(plan(policy, host_tokens=65536))
    assert without.loaded_tokens is None
    assert tiered.loaded_tokens and tiered.loaded_tokens > 0
    assert tiered.recomputed_tokens < without.recomputed_tokens  # type: ignore[operator]
    assert tiered.num_turns == without.num_turns
    assert figures(tiered) == figures(simulate(plan(policy, host_tokens=65536)))


def test_records_of_a_run_are_summarized_over_any_part_of_it() -> None:
    from holdfast.vllm.simulator.run import run_plan

    options = SimulationOptions(6, time_scale=0.02, token_scale=1 / 16, window=Window(0.0, 8.0))
    planned = plan("vllm-default", options=options)
    run = run_plan(planned)
    assert figures(run.result()) == figures(simulate(planned))
    halves = [run.result_in(Window(0.0, 4.0)), run.result_in(Window(4.0, 4.0))]
    sent = [turn for turn in run.records.turns if turn.sent_s < 4.0]
    known = [turn for turn in sent if turn.last_token_s is not None and turn.last_token_s < 4.0]
    assert halves[0].num_turns == len(known) > 0
    assert halves[0].evicted_blocks is None
    assert sum(half.num_turns for half in halves) <= run.result().num_turns


def test_run_takes_sessions_in_place_of_the_workload() -> None:
    from holdfast.vllm.simulator.run import run_plan

    planned = plan("vllm-default")
    chosen = planned.workload.sessions(planned.seed).sessions[:2]
    assert run_plan(planned, chosen).result().num_sessions == 2
