"""Figures of a simulated run, defined as the measured ones are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.core.results import Distribution, TurnRecord, ratio
from holdfast.core.window import Window
from holdfast.vllm.simulator.run import SimulatedRun

__all__ = ["Figures", "figures"]

Figures = dict[str, float | None]


def figures(run: SimulatedRun, window: Window) -> Figures:
    """Figures of a part of a run, by the names in measured.json. Pure.

    Times and tokens are of requests sent and answered in the window, since the measuring clients
    drop the others. Hits are of requests whose first token falls into it, as an engine counts.
    """
    plan = run.plan
    is_all = window == plan.options.window
    result = run.result() if is_all else run.result_in(window)
    working_set = (result.working_set_ratio or 0.0) * plan.cached_tokens
    turns = run.records.turns
    answered = [t for t in turns if window.contains(t.sent_s) and window.contains(t.last_token_s)]
    started = [t for t in turns if window.contains(t.first_token_s)]
    loads = [min(t.loaded_tokens or 0, t.cached_tokens or 0) for t in started]
    cached, prompts = _sum(started, "cached_tokens"), _sum(started, "prompt_tokens")
    return {
        "output_tokens_per_s": _sum(answered, "output_tokens") / window.duration_s,
        "input_tokens_per_s": _sum(answered, "prompt_tokens") / window.duration_s,
        "num_requests": len(answered),
        "hit_ratio": ratio(cached, prompts),
        "gpu_hit_ratio": ratio(cached - sum(loads), prompts),
        "tier_hit_ratio": ratio(sum(loads), prompts),
        "prefill_tokens_millions": (prompts - cached) / 1e6,
        **_percentiles("ttft", [t.ttft_s for t in answered]),
        **_percentiles("latency", [t.request_latency_s for t in answered]),
        "itl_p50_ms": None if result.itl_s is None else 1e3 * result.itl_s.p50,
        "mean_prompt_tokens": ratio(_sum(answered, "prompt_tokens"), len(answered)),
        "mean_output_tokens": ratio(_sum(answered, "output_tokens"), len(answered)),
        "working_set_ratio": working_set / plan.profile.kv_tokens,
        "in_flight": result.mean_in_flight,
        "preemptions": result.preemptions,
        "ttft_p99_with_waiting_s": None if result.ttft_s is None else result.ttft_s.p99,
        "longest_wait_s": result.longest_wait_s,
        "produced_tokens_per_s": result.output_tokens_per_s if is_all else None,
        "uncovered_share": result.uncovered_share,
    }


def _sum(turns: Sequence[TurnRecord], name: str) -> int:
    return sum(getattr(turn, name) or 0 for turn in turns)


def _percentiles(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    found = Distribution.from_values(value for value in values if value is not None)
    if found is None:
        return {}
    return {f"{name}_{p}_s": getattr(found, p) for p in ("p50", "p90", "p99")}
