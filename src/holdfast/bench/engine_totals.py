"""Explains a running engine: its sums, and its sessions by its control routes."""

from __future__ import annotations

import urllib.request
from collections import Counter
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from holdfast.bench.engine_sessions import misses_of, read_states
from holdfast.bench.scrape import parse_metrics
from holdfast.errors import EndpointError
from holdfast.report.explanation import Explanation, explain, explain_totals

__all__ = ["engine_explanation"]

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 64 << 20
_LIVE: Final = ("waiting", "running", "at_tool", "human_away")


def engine_explanation(
    url: str, token: str | None = None, session_id: str | None = None
) -> Explanation:
    """Explain what an engine has counted since it started.

    Args:
        url: Its address, without a path.
        token: Bearer token of its control routes, which know the last turns of each session and
            who waits now; None for sums alone.
        session_id: Only the last turns of sessions with this id or number; None for all.

    Raises:
        EndpointError: It cannot be reached, or is no engine with Holdfast.
    """
    cached, missed, lost_s, cache_tokens = _sums(url)
    if token is None:
        return explain_totals(cached, missed, lost_s, cache_tokens)
    states = read_states(url, token)
    last = explain(misses_of(states), session_id)
    if session_id is not None:
        return last
    live = [
        (session.context_blocks * state.engine.block_tokens, session)
        for state in states
        for session in state.sessions
        if session.state in _LIVE
    ]
    cache_tokens = sum(state.engine.cache_tokens for state in states) or cache_tokens
    found = explain_totals(cached, missed, lost_s, cache_tokens, sum(size for size, _ in live))
    found.sessions, found.waits = last.sessions, last.waits
    found.num_sessions = len(last.sessions)
    reasons = [one.starts_after.reason for _, one in live if one.starts_after is not None]
    found.num_waiting = dict(Counter(reasons).most_common())
    return found


def _sums(url: str) -> tuple[int, dict[str, int], dict[str, float], int]:
    """Cached tokens, missing ones and lost seconds by reason, and tokens of the cache."""
    metrics_url = f"{url.rstrip('/')}/metrics"
    try:
        with urllib.request.urlopen(metrics_url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"{metrics_url}: {getattr(error, 'reason', error)}",
            hint="give the address of an engine, such as http://127.0.0.1:8000",
        ) from error
    cached = 0.0
    missed: dict[str, int] = {}
    lost_s: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            reason = sample.labels.get("reason", "")
            if sample.name == "holdfast_cached_tokens_total":
                cached += sample.value
            elif sample.name == "holdfast_missed_tokens_total":
                missed[reason] = missed.get(reason, 0) + int(sample.value)
            elif sample.name == "holdfast_lost_seconds_total":
                lost_s[reason] = lost_s.get(reason, 0.0) + sample.value
    if not missed:
        raise EndpointError(
            f"{metrics_url} has no holdfast_missed_tokens_total",
            hint="serve with `holdfast serve`; stock vLLM does not attribute misses",
        )
    return int(cached), missed, lost_s, parse_metrics(text).kv_tokens or 0
