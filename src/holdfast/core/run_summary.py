"""The figures of a run, from the records of its turns and sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from holdfast.core.censored import censored_distribution
from holdfast.core.live_sessions import LiveSessions
from holdfast.core.results import (
    Counters,
    Distribution,
    RunResult,
    SessionRecord,
    TurnRecord,
    ratio,
)
from holdfast.core.slo import Slo
from holdfast.core.window import Window, successive_spans

__all__ = ["summarize_run"]


@dataclass(frozen=True, slots=True)
class _Counted:
    """The turns of a run that count, each kind for its figures.

    Attributes:
        sent: Sent in the window.
        started: Those of them with a first token by its end.
        answered: Those of them that were answered by its end.
        ended: Answered in the window, sent at any time.
        window: The window; all of the run where the caller gave none.
    """

    sent: Sequence[TurnRecord]
    started: Sequence[TurnRecord]
    answered: Sequence[TurnRecord]
    ended: Sequence[TurnRecord]
    window: Window | None

    @classmethod
    def of(cls, turns: Sequence[TurnRecord], window: Window | None) -> _Counted:
        """Sort turns; without a window those that were answered count for everything."""
        good = [turn for turn in turns if turn.error_kind is None]
        if window is None:
            return cls(good, good, good, good, None)
        end_s = window.end_s
        sent = [turn for turn in good if window.contains(turn.sent_s)]
        started = [t for t in sent if t.first_token_s is not None and t.first_token_s < end_s]
        answered = [t for t in sent if t.last_token_s is not None and t.last_token_s < end_s]
        ended = [turn for turn in good if window.contains(turn.last_token_s)]
        return cls(sent, started, answered, ended, window)

    def distribution(self, ended: Sequence[TurnRecord], value: Any) -> Distribution | None:
        """Distribution of a duration that has ended for some of the turns sent."""
        known = [each for turn in ended if (each := value(turn)) is not None]
        if self.window is None:
            return Distribution.from_values(known)
        names = {id(turn) for turn in ended}
        end_s = self.window.end_s
        open_s = [end_s - turn.sent_s for turn in self.sent if id(turn) not in names]
        return censored_distribution(known, open_s)


def summarize_run(
    turns: Sequence[TurnRecord],
    sessions: Sequence[SessionRecord],
    *,
    policy: str,
    seed: int,
    concurrency: int,
    makespan_s: float | None,
    partial: bool,
    counters: Counters | None = None,
    window: Window | None = None,
    slo: Slo | None = None,
    num_output_tokens: int | None = None,
) -> RunResult:
    """Compute a run's figures, the hit ratio from `counters` if they have it. Pure.

    Args:
        turns: All turns; unanswered ones without errors count in a window only.
        sessions: All sessions; of those that have not ended, the end is that of the run.
        policy: Name of the policy.
        seed: Decided which sessions ran.
        concurrency: Sessions that were to be live at once.
        makespan_s: Start of the run to its last event (s).
        partial: Whether the run was stopped early.
        counters: Of the engine, over the part of the run that counts.
        window: The part of the run that counts; None for all of it.
        slo: Limits whose share of turns is wanted.
        num_output_tokens: Tokens produced in that part; None takes those of the answers.
    """
    counters = counters or Counters()
    counted = _Counted.of(turns, window)
    length_s = makespan_s if window is None else window.duration_s
    return RunResult(
        policy=policy,
        seed=seed,
        concurrency=concurrency,
        num_sessions=len(sessions),
        num_errors=_num_errors(turns),
        partial=partial,
        makespan_s=length_s,
        token_hit_ratio=_hit_ratio(counted.started, counters),
        recomputed_tokens=_recomputed_tokens(turns, counted.started, counters),
        **_counter_figures(counters),
        **_hits_by_source(counted.started),
        **_durations(counted, sessions),
        **_rates(turns, counted, length_s, num_output_tokens),
        **_live_figures(counted, sessions, makespan_s),
        **_concurrent_figures(turns, sessions, window, makespan_s, counters.kv_tokens),
        **_window_figures(counted),
        **_slo_figures(counted, slo, length_s),
    )


def _counter_figures(counters: Counters) -> dict[str, Any]:
    return {
        "kv_tokens": counters.kv_tokens,
        "evicted_blocks": _whole(counters.evicted_blocks),
        "loaded_tokens": _whole(counters.loaded_tokens),
        "preemptions": _whole(counters.preemptions),
        "engine_steps": _whole(counters.engine_steps),
        "disk_loaded_tokens": _whole(counters.disk_loaded_tokens),
        "prefetches": counters.prefetches,
        "policy_cpu_s": counters.policy_cpu_s,
        "scheduler_cpu_s": counters.scheduler_cpu_s,
        "fallbacks": _whole(counters.fallbacks),
        "host_tokens": _whole(counters.host_tokens),
        "disk_tokens": _whole(counters.disk_tokens),
    }


def _durations(counted: _Counted, sessions: Sequence[SessionRecord]) -> dict[str, Any]:
    """Times of turns, and of sessions where all of the run counts."""
    answered = counted.answered
    completed = [s for s in sessions if s.is_completed] if counted.window is None else []
    return {
        "session_llm_time_s": Distribution.from_values(_llm_times_s(answered, completed)),
        "session_time_s": Distribution.from_values(s.ended_s - s.started_s for s in completed),
        "ttft_s": counted.distribution(counted.started, lambda turn: turn.ttft_s),
        "request_latency_s": counted.distribution(answered, lambda turn: turn.request_latency_s),
        "itl_s": Distribution.from_values(t.itl_s for t in answered if t.itl_s is not None),
    }


def _rates(
    turns: Sequence[TurnRecord],
    counted: _Counted,
    length_s: float | None,
    num_output_tokens: int | None,
) -> dict[str, Any]:
    """Turns and tokens, in all and a second."""
    output_tokens = sum(turn.output_tokens for turn in counted.answered)
    produced = output_tokens if num_output_tokens is None else num_output_tokens
    useful_tokens = sum(turn.appended_tokens + turn.output_tokens for turn in counted.ended)
    return {
        "num_turns": len(counted.answered),
        "prompt_tokens": sum(turn.prompt_tokens for turn in counted.answered),
        "output_tokens": output_tokens,
        "goodput_tokens_per_s": ratio(useful_tokens, length_s),
        "prompt_tokens_per_s": ratio(_prompt_tokens(turns, counted), length_s),
        "output_tokens_per_s": ratio(produced, length_s),
    }


def _prompt_tokens(turns: Sequence[TurnRecord], counted: _Counted) -> int:
    """Tokens of prompts whose first token was produced in the part that counts."""
    window = counted.window
    if window is None:
        return sum(turn.prompt_tokens for turn in counted.answered)
    return sum(turn.prompt_tokens for turn in turns if window.contains(turn.first_token_s))


def _hits_by_source(started: Sequence[TurnRecord]) -> dict[str, Any]:
    known = [t for t in started if t.cached_tokens is not None and t.loaded_tokens is not None]
    prompt_tokens = sum(turn.prompt_tokens for turn in known)
    loaded = sum(min(turn.loaded_tokens or 0, turn.cached_tokens or 0) for turn in known)
    cached = sum(turn.cached_tokens or 0 for turn in known)
    return {
        "gpu_hit_ratio": ratio(cached - loaded, prompt_tokens),
        "tier_hit_ratio": ratio(loaded, prompt_tokens),
    }


def _live_figures(
    counted: _Counted, sessions: Sequence[SessionRecord], makespan_s: float | None
) -> dict[str, Any]:
    if not sessions:
        return {}
    if counted.window is not None:
        spans = [(session.started_s, session.ended_s, 1.0) for session in sessions]
        return {"mean_live_sessions": counted.window.mean(spans)}
    live = LiveSessions.of([(session.started_s, session.ended_s) for session in sessions])
    useful_tokens = sum(
        (turn.appended_tokens + turn.output_tokens)
        * live.share_at_peak(turn.sent_s, turn.last_token_s)
        for turn in counted.answered
        if turn.last_token_s is not None
    )
    return {
        "peak_live_sessions": live.peak,
        "mean_live_sessions": ratio(live.session_s, makespan_s),
        "all_live_s": live.peak_s,
        "all_live_goodput_tokens_per_s": ratio(useful_tokens, live.peak_s),
    }


def _concurrent_figures(
    turns: Sequence[TurnRecord],
    sessions: Sequence[SessionRecord],
    window: Window | None,
    makespan_s: float | None,
    kv_tokens: int | None,
) -> dict[str, Any]:
    """Requests in flight, and the live sessions' prompts against the cache."""
    if not makespan_s:
        return {}
    span = window or Window(0.0, makespan_s)
    in_flight = span.mean((turn.sent_s, turn.last_token_s, 1.0) for turn in turns)
    ends_s = {session.session_id: session.ended_s for session in sessions}
    ordered = sorted(turns, key=lambda turn: (turn.session_id, turn.sent_s))
    prompts: list[tuple[float, float | None, float]] = []
    for session_id, group in groupby(ordered, key=lambda turn: turn.session_id):
        of_session = list(group)
        times_s = [turn.sent_s for turn in of_session]
        values = [float(turn.prompt_tokens) for turn in of_session]
        prompts += successive_spans(times_s, values, ends_s.get(session_id))
    return {
        "mean_in_flight": in_flight,
        "working_set_ratio": ratio(span.mean(prompts), kv_tokens),
    }


def _window_figures(counted: _Counted) -> dict[str, Any]:
    window = counted.window
    if window is None:
        return {}
    started = {id(turn) for turn in counted.started}
    waits_s = [window.end_s - turn.sent_s for turn in counted.sent if id(turn) not in started]
    return {
        "window_start_s": window.start_s,
        "window_s": window.duration_s,
        "num_waiting": len(waits_s),
        "longest_wait_s": max(waits_s, default=0.0),
    }


def _slo_figures(counted: _Counted, slo: Slo | None, length_s: float | None) -> dict[str, Any]:
    """Share and throughput within the objective; one that waits too long misses it."""
    if slo is None or not slo.is_set:
        return {}
    met = [turn for turn in counted.answered if slo.is_met(turn)]
    num_late = 0
    if counted.window is not None and slo.ttft_s is not None:
        started = {id(turn) for turn in counted.started}
        waiting = [turn for turn in counted.sent if id(turn) not in started]
        num_late = sum(counted.window.end_s - turn.sent_s > slo.ttft_s for turn in waiting)
    return {
        "slo_share": ratio(len(met), len(counted.answered) + num_late),
        "slo_output_tokens_per_s": ratio(sum(turn.output_tokens for turn in met), length_s),
    }


def _num_errors(turns: Sequence[TurnRecord]) -> int:
    return sum(turn.error_kind not in (None, "cancelled") for turn in turns)


def _whole(count: float | None) -> int | None:
    return None if count is None else round(count)


def _hit_ratio(started: Sequence[TurnRecord], counters: Counters) -> float | None:
    if counters.cache_query_tokens is not None:
        return ratio(counters.cache_hit_tokens, counters.cache_query_tokens)
    known = [turn for turn in started if turn.cached_tokens is not None]
    return ratio(
        sum(turn.cached_tokens or 0 for turn in known), sum(turn.prompt_tokens for turn in known)
    )


def _recomputed_tokens(
    turns: Sequence[TurnRecord], started: Sequence[TurnRecord], counters: Counters
) -> int | None:
    """Return computed tokens less first-seen ones, with the effect of whole blocks."""
    if counters.cache_query_tokens is not None and counters.cache_hit_tokens is not None:
        computed = counters.cache_query_tokens - counters.cache_hit_tokens
        return max(0, round(computed - sum(turn.first_seen_tokens for turn in turns)))
    if not started or any(turn.cached_tokens is None for turn in started):
        return None
    return sum(
        max(0, turn.prompt_tokens - (turn.cached_tokens or 0) - turn.first_seen_tokens)
        for turn in started
    )


def _llm_times_s(
    answered: Sequence[TurnRecord], completed: Sequence[SessionRecord]
) -> Iterable[float]:
    totals = {session.session_id: 0.0 for session in completed}
    for turn in answered:
        if turn.session_id in totals and turn.request_latency_s is not None:
            totals[turn.session_id] += turn.request_latency_s
    return totals.values()
