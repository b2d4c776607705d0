"""Results of a run: records of turns, figures from them, and the JSON document.

The keys of `RunResult` are a published contract, the same for every host that runs sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

__all__ = [
    "SCHEMA",
    "Counters",
    "Distribution",
    "ErrorKind",
    "RunDocument",
    "RunResult",
    "SessionRecord",
    "TurnRecord",
    "ratio",
]

SCHEMA = "holdfast.run/1"

ErrorKind = Literal[
    "cancelled", "connect", "disconnected", "http_status", "incomplete", "malformed", "stalled"
]


class Distribution(msgspec.Struct, frozen=True):
    """Mean and percentiles of a quantity, in the unit of the key that holds it."""

    mean: float
    p50: float
    p95: float
    p99: float
    p90: float | None = None

    @classmethod
    def from_values(cls, values: Iterable[float]) -> Distribution | None:
        """Summarise values, percentiles interpolated linearly; None without values. Pure."""
        array = np.fromiter(values, dtype=np.float64)
        if array.size == 0:
            return None
        p50, p90, p95, p99 = map(float, np.percentile(array, (50, 90, 95, 99)))
        return cls(mean=float(array.mean()), p50=p50, p95=p95, p99=p99, p90=p90)


class TurnRecord(msgspec.Struct, frozen=True):
    """One turn of a run; times are in seconds since the start of the run.

    Attributes:
        session_id: The session it belongs to.
        turn_index: Position in the session, from 0.
        sent_s: When the request was sent.
        first_token_s: When the first token arrived; None without a token.
        last_token_s: When the answer ended; None if it did not.
        prompt_tokens: As counted by the engine, else as sent.
        appended_tokens: Prompt tokens beyond what this session had sent before.
        first_seen_tokens: Prompt tokens beyond what any session of the run had sent before.
        output_tokens: As counted by the engine; if the answer broke off, as received.
        cached_tokens: Prompt tokens that the engine found in its cache; None if unknown.
        loaded_tokens: Those of them that it loaded from a lower tier; None if unknown.
        error_kind: Kind of the error; None for a complete answer.
        error: Description of the error.
    """

    session_id: str
    turn_index: int
    sent_s: float
    first_token_s: float | None
    last_token_s: float | None
    prompt_tokens: int
    appended_tokens: int
    first_seen_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    error_kind: ErrorKind | None = None
    error: str | None = None
    loaded_tokens: int | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time from sending to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def request_latency_s(self) -> float | None:
        """Time from sending to the end of the answer."""
        return None if self.last_token_s is None else self.last_token_s - self.sent_s

    @property
    def itl_s(self) -> float | None:
        """Mean time between the tokens of the answer; None with fewer than two."""
        if self.last_token_s is None or self.first_token_s is None or self.output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)


class SessionRecord(msgspec.Struct, frozen=True):
    """One session of a run, completed if all its turns were answered."""

    session_id: str
    started_s: float
    ended_s: float
    is_completed: bool


class Counters(msgspec.Struct, frozen=True):
    """Counters of an engine over a run; None for those that it does not report.

    Attributes:
        cache_query_tokens: Prompt tokens looked up in the prefix cache.
        cache_hit_tokens: Prompt tokens found, in the cache or in a tier below it.
        evicted_blocks: Cached blocks evicted for others.
        preemptions: Running requests that were preempted.
        loaded_tokens: Tokens loaded from a lower tier.
        disk_loaded_tokens: Tokens read from the disk tier, prefetches included.
        prefetches: Prefetches by outcome.
        host_tokens: Prompt tokens loaded from host memory.
        disk_tokens: Prompt tokens loaded from a disk.
        fallbacks: Times that Holdfast fell back to the engine's own order.
        engine_steps: Calls of the scheduler.
        policy_cpu_s: CPU time of Holdfast's decisions (s).
        scheduler_cpu_s: CPU time of the scheduler, decisions included (s).
        kv_tokens: Size of the KV cache (tokens).
    """

    cache_query_tokens: float | None = None
    cache_hit_tokens: float | None = None
    evicted_blocks: float | None = None
    preemptions: float | None = None
    loaded_tokens: float | None = None
    disk_loaded_tokens: float | None = None
    prefetches: dict[str, int] | None = None
    host_tokens: float | None = None
    disk_tokens: float | None = None
    fallbacks: float | None = None
    engine_steps: float | None = None
    policy_cpu_s: float | None = None
    scheduler_cpu_s: float | None = None
    kv_tokens: int | None = None

    def since(self, before: Counters) -> Counters:
        """Return the increase since `before`; `kv_tokens` unchanged. Pure."""
        increase: dict[str, Any] = {}
        for name in self.__struct_fields__:
            now, then = getattr(self, name), getattr(before, name)
            if isinstance(now, dict):
                increase[name] = {key: now[key] - (then or {}).get(key, 0) for key in now}
            else:
                increase[name] = None if now is None else now - (then or 0.0)
        return msgspec.structs.replace(Counters(**increase), kv_tokens=self.kv_tokens)

    @classmethod
    def sum_of(cls, parts: Sequence[Counters]) -> Counters:
        """Return the counters of several engines together; None where one has none. Pure."""
        if len(parts) == 1:
            return parts[0]
        total: dict[str, Any] = {}
        for name in cls.__struct_fields__:
            values = [getattr(part, name) for part in parts]
            if any(value is None for value in values):
                total[name] = None
            elif isinstance(values[0], dict):
                total[name] = dict(sum(map(Counter, values), Counter()))
            else:
                total[name] = sum(values)
        return cls(**total)


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one policy, seed and concurrency; None for unknown ones.

    Attributes:
        concurrency: Sessions to be live at once (count).
        peak_live_sessions: Most sessions live at once; fewer than `concurrency` if there were not
            enough.
        mean_live_sessions: Mean number of live sessions, from the start of the run to its last
            event.
        all_live_s: Time from when the peak was first reached to when it was last left; after it
            the last sessions had less competition (s).
        all_live_goodput_tokens_per_s: `goodput_tokens_per_s` in that time; a turn that is partly
            outside counts by the share of its latency that is inside.
        num_sessions: Sessions started.
        num_turns: Turns answered in full; the token counts and latencies are theirs.
        token_hit_ratio: Cached prompt tokens / prompt tokens looked up.
        recomputed_tokens: Prompt tokens computed although an earlier prompt of the run had them.
        loaded_tokens: Prompt tokens loaded from a lower tier.
        host_tokens: Prompt tokens loaded from host memory.
        disk_tokens: Prompt tokens loaded from a disk.
        session_llm_time_s: LLM time of each completed session: the sum of its request latencies,
            without tool and human time (s).
        session_time_s: First request to last token of each completed session (s).
        makespan_s: Start of the run to its last event (s).
        goodput_tokens_per_s: Appended prompt and output tokens, without recomputation.
        num_errors: Turns that failed, except those that the operator cancelled.
        partial: Whether the run was stopped before all sessions had ended.
        session_ends: Whether requests said which one was the last of a session; None if unknown.
        window_start_s: Start of the part of the run that counts; None where all of it does. Figures
            of turns then are those of turns sent in the window; a turn that still waits at its end
            counts with the time it has waited, see `censored_distribution`; there is no LLM time.
        window_s: Length of that part (s).
        output_tokens_per_s: Tokens of answers produced a second.
        itl_s: Mean time between the tokens of each answer (s).
        mean_in_flight: Mean number of requests sent and not answered.
        working_set_ratio: Mean of the live sessions' last prompts together, relative to the KV
            cache's tokens.
        gpu_hit_ratio: Prompt tokens found in the KV cache itself / prompt tokens looked up.
        tier_hit_ratio: Prompt tokens loaded from lower tiers / prompt tokens looked up.
        num_waiting: Turns of the window without a first token at its end (count).
        longest_wait_s: Time that the longest waiting of them has waited (s).
        slo_share: Share of turns within the service level objective (0 to 1).
        slo_output_tokens_per_s: Output tokens a second of turns within it.
        uncovered_share: Share of the time that the engine spent in steps beyond what the cost
            profile was fitted to (0 to 1).
        session_llm_time_bound_s: Lower bound on the mean LLM time of a session under any policy.
        fleet: The engines and their router, where requests go by one; `kv_tokens` is that of all
            engines together.
    """

    policy: str
    seed: int
    concurrency: int
    num_sessions: int
    num_turns: int
    num_errors: int
    partial: bool
    kv_tokens: int | None
    prompt_tokens: int
    output_tokens: int
    token_hit_ratio: float | None
    evicted_blocks: int | None
    recomputed_tokens: int | None
    loaded_tokens: int | None
    session_llm_time_s: Distribution | None
    session_time_s: Distribution | None
    ttft_s: Distribution | None
    request_latency_s: Distribution | None
    makespan_s: float | None
    goodput_tokens_per_s: float | None
    prompt_tokens_per_s: float | None
    preemptions: int | None
    engine_steps: int | None = None
    policy_cpu_s: float | None = None
    scheduler_cpu_s: float | None = None
    disk_loaded_tokens: int | None = None
    prefetches: dict[str, int] | None = None
    fallbacks: int | None = None
    host_tokens: int | None = None
    disk_tokens: int | None = None
    peak_live_sessions: int | None = None
    mean_live_sessions: float | None = None
    all_live_s: float | None = None
    all_live_goodput_tokens_per_s: float | None = None
    session_ends: Literal["known", "unknown"] | None = None
    window_start_s: float | None = None
    window_s: float | None = None
    output_tokens_per_s: float | None = None
    itl_s: Distribution | None = None
    mean_in_flight: float | None = None
    working_set_ratio: float | None = None
    gpu_hit_ratio: float | None = None
    tier_hit_ratio: float | None = None
    num_waiting: int | None = None
    longest_wait_s: float | None = None
    slo_share: float | None = None
    slo_output_tokens_per_s: float | None = None
    uncovered_share: float | None = None
    session_llm_time_bound_s: float | None = None
    fleet: str | msgspec.UnsetType = msgspec.UNSET


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The document that `--json` writes.

    Attributes:
        manifest: Inputs and environment of the runs.
        runs: Results of the runs.
        restarted: Results of the sessions' next turns after a restart of the engine, if there was
            one.
    """

    manifest: dict[str, Any]
    runs: list[RunResult]
    restarted: list[RunResult] | msgspec.UnsetType = msgspec.UNSET
    schema: str = SCHEMA

    def to_json(self) -> bytes:
        """Encode as indented UTF-8 JSON with a final newline. Pure."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Divide; None if either number is unknown or the denominator is 0. Pure."""
    if numerator is None or not denominator:
        return None
    return numerator / denominator
