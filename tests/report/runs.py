"""Made-up runs, with plain figures where a test does not set them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from holdfast.core.results import Distribution, RunResult


def seconds(mean: float) -> Distribution:
    """Equal times (s)."""
    return Distribution(mean=mean, p50=mean, p95=mean, p99=mean)


def run_of(policy: str, seed: int = 0, llm_s: float | None = 1.0, **changes: Any) -> RunResult:
    """One run; `llm_s` is the LLM time of each session (s)."""
    run = RunResult(
        policy=policy,
        seed=seed,
        concurrency=8,
        num_sessions=4,
        num_turns=40,
        num_errors=0,
        partial=False,
        kv_tokens=1024,
        prompt_tokens=1000,
        output_tokens=100,
        token_hit_ratio=0.5,
        evicted_blocks=100,
        recomputed_tokens=10,
        loaded_tokens=None,
        session_llm_time_s=None if llm_s is None else seconds(llm_s),
        session_time_s=seconds(1.0),
        ttft_s=seconds(1.0),
        request_latency_s=seconds(1.0),
        makespan_s=10.0,
        goodput_tokens_per_s=1.0,
        prompt_tokens_per_s=1.0,
        preemptions=0,
        engine_steps=1000,
        scheduler_cpu_s=0.05,
    )
    return msgspec.structs.replace(run, **changes)


def runs_of(policy: str, llm_times_s: Iterable[float | None], **changes: Any) -> list[RunResult]:
    """One run for each seed."""
    return [run_of(policy, seed, llm_s, **changes) for seed, llm_s in enumerate(llm_times_s)]
