"""The figures of a run in tables and plots, with their units."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from holdfast.core.results import Distribution, RunResult, ratio

__all__ = [
    "ALL_METRICS",
    "HIT_RATIO",
    "LLM_TIME",
    "METRICS",
    "MISS_RATIO",
    "OUTPUT_RATE",
    "PRESSURE",
    "REPLAY_METRICS",
    "TIER_METRICS",
    "Better",
    "Metric",
    "objective",
]

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run.

    Attributes:
        label: Name with the unit.
        better: Which direction is an improvement.
        value: Reads it from a result; None where the run cannot know it.
        num_decimals: Decimals to show.
    """

    label: str
    better: Better
    value: Callable[[RunResult], float | None]
    num_decimals: int


def _part(
    distribution: Callable[[RunResult], Distribution | None],
    part: Literal["mean", "p50", "p90", "p99"],
) -> Callable[[RunResult], float | None]:
    def value(run: RunResult) -> float | None:
        found = distribution(run)
        if found is None:
            return None
        shown: float | None = getattr(found, part)
        return shown

    return value


def _llm_time(run: RunResult) -> Distribution | None:
    return run.session_llm_time_s


def _ttft(run: RunResult) -> Distribution | None:
    return run.ttft_s


def _latency(run: RunResult) -> Distribution | None:
    return run.request_latency_s


def _itl_ms(run: RunResult) -> float | None:
    return None if run.itl_s is None else 1e3 * run.itl_s.p50


def _miss_ratio(run: RunResult) -> float | None:
    return None if run.token_hit_ratio is None else 1.0 - run.token_hit_ratio


def _computed_tokens(run: RunResult) -> float | None:
    misses = _miss_ratio(run)
    return None if misses is None else run.prompt_tokens * misses


def _scheduler_step_us(run: RunResult) -> float | None:
    step_s = ratio(run.scheduler_cpu_s, run.engine_steps)
    return None if step_s is None else 1e6 * step_s


HIT_RATIO: Final = Metric("token hit ratio", "higher", lambda run: run.token_hit_ratio, 3)
MISS_RATIO: Final = Metric("token miss ratio", "lower", _miss_ratio, 3)
LLM_TIME: Final = Metric("LLM time a session, mean (s)", "lower", _part(_llm_time, "mean"), 2)

PRESSURE: Final = Metric("working set / KV cache", "neither", lambda run: run.working_set_ratio, 2)
OUTPUT_RATE: Final = Metric("output (tokens/s)", "higher", lambda run: run.output_tokens_per_s, 1)

_TIMES: Final = (
    LLM_TIME,
    Metric("TTFT p50 (s)", "lower", _part(_ttft, "p50"), 3),
    Metric("TTFT p99 (s)", "lower", _part(_ttft, "p99"), 3),
    Metric("request latency p50 (s)", "lower", _part(_latency, "p50"), 3),
    Metric("request latency p99 (s)", "lower", _part(_latency, "p99"), 3),
    Metric("makespan (s)", "lower", lambda run: run.makespan_s, 1),
)
_EVICTED = Metric("evicted blocks", "lower", lambda run: run.evicted_blocks, 0)
_ERRORS = Metric("errors", "neither", lambda run: run.num_errors, 0)
_GOODPUT = Metric("goodput (tokens/s)", "higher", lambda run: run.goodput_tokens_per_s, 1)
_PREEMPTIONS = Metric("preemptions", "lower", lambda run: run.preemptions, 0)

METRICS: Final = (HIT_RATIO, _EVICTED, *_TIMES, _ERRORS)
"""The metrics of two policies side by side."""

TIER_METRICS: Final = (
    Metric("prompt tokens", "neither", lambda run: run.prompt_tokens, 0),
    Metric("computed", "lower", _computed_tokens, 0),
    Metric("from host memory", "neither", lambda run: run.host_tokens, 0),
    Metric("from disk", "neither", lambda run: run.disk_tokens, 0),
    *_TIMES,
    _ERRORS,
)
"""The metrics that tiers below the KV cache change."""

REPLAY_METRICS: Final = (
    HIT_RATIO,
    _EVICTED,
    *_TIMES,
    Metric("sessions live at once, mean", "neither", lambda run: run.mean_live_sessions, 1),
    _GOODPUT,
    Metric(
        "goodput, all live (tokens/s)", "higher", lambda run: run.all_live_goodput_tokens_per_s, 1
    ),
    _PREEMPTIONS,
    Metric("turns answered", "neither", lambda run: run.num_turns, 0),
    _ERRORS,
)
"""The metrics of runs on live endpoints."""

ALL_METRICS: Final = (
    *METRICS,
    OUTPUT_RATE,
    Metric("TTFT p90 (s)", "lower", _part(_ttft, "p90"), 3),
    Metric("request latency mean (s)", "lower", _part(_latency, "mean"), 3),
    Metric("ITL p50 (ms)", "lower", _itl_ms, 1),
    Metric("in flight, mean", "neither", lambda run: run.mean_in_flight, 1),
    PRESSURE,
    Metric("hits in the KV cache", "higher", lambda run: run.gpu_hit_ratio, 3),
    Metric("hits in lower tiers", "neither", lambda run: run.tier_hit_ratio, 3),
    Metric("waiting at the end", "lower", lambda run: run.num_waiting, 0),
    Metric("longest wait at the end (s)", "lower", lambda run: run.longest_wait_s, 1),
    Metric("share within the SLO", "higher", lambda run: run.slo_share, 3),
    Metric(
        "output within the SLO (tokens/s)", "higher", lambda run: run.slo_output_tokens_per_s, 1
    ),
    Metric("LLM time a session, p50 (s)", "lower", _part(_llm_time, "p50"), 2),
    Metric("LLM time a session, p99 (s)", "lower", _part(_llm_time, "p99"), 2),
    _GOODPUT,
    Metric("recomputed tokens", "lower", lambda run: run.recomputed_tokens, 0),
    _PREEMPTIONS,
    Metric("scheduler CPU a step (\u00b5s)", "lower", _scheduler_step_us, 1),
)
"""The metrics of simulated policies."""


def objective(runs: Iterable[RunResult]) -> Metric:
    """The figure that counts: LLM time a session, in a window the output. Pure."""
    return OUTPUT_RATE if any(run.window_s is not None for run in runs) else LLM_TIME
