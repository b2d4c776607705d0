"""Explains running engines, gateways and MCP proxies by what they have counted."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from holdfast.bench.engine_sessions import misses_of, read_states
from holdfast.bench.scrape import parse_metrics
from holdfast.errors import EndpointError
from holdfast.report.explanation import Explanation, explain, explain_totals
from holdfast.report.policy_explanation import explain_calls, explain_changes

__all__ = ["engine_explanation"]

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 64 << 20
_LIVE: Final = ("waiting", "running", "at_tool", "human_away")


def engine_explanation(
    url: str, token: str | None = None, session_id: str | None = None
) -> Explanation:
    """Explain what an engine, a gateway or an MCP proxy has counted since it started.

    Args:
        url: Its address, without a path.
        token: Bearer token of an engine's control routes, which know the last turns of each session
            and who waits now, or of a gateway's admin port; None for sums alone.
        session_id: Only the last turns of sessions with this id or number; None for all.

    Raises:
        EndpointError: It cannot be reached, or is none of these.
    """
    text = _metrics(url, token)
    families = list(text_string_to_metric_families(text))
    if any(family.name.startswith("holdfast_gateway_") for family in families):
        return _gateway_explanation(families)
    if any(family.name.startswith("holdfast_mcp_") for family in families):
        return _proxy_explanation(families)
    cache_tokens = parse_metrics(text).kv_tokens or 0
    if token is None:
        return _explained(url, families, cache_tokens)
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
    found = _explained(url, families, cache_tokens, sum(size for size, _ in live))
    found.sessions, found.waits = last.sessions, last.waits
    found.num_sessions = len(last.sessions)
    reasons = [one.starts_after.reason for _, one in live if one.starts_after is not None]
    found.num_waiting = dict(Counter(reasons).most_common())
    return found


def _metrics(url: str, token: str | None) -> str:
    """The text of the metrics."""
    metrics_url = f"{url.rstrip('/')}/metrics"
    try:
        request = urllib.request.Request(metrics_url)
        if token is not None:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            text: str = answer.read(_MAX_BYTES).decode("utf-8", "replace")
            return text
    except urllib.error.HTTPError as error:
        hint = "give an engine's address, or a gateway's admin port"
        if error.code == 401:
            hint = "give the admin token of the gateway: --token-file FILE"
        raise EndpointError(f"{metrics_url}: {error}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"{metrics_url}: {getattr(error, 'reason', error)}",
            hint="give the address of an engine, such as http://127.0.0.1:8000",
        ) from error


def _explained(
    url: str, families: Sequence[Metric], cache_tokens: int, working_set_tokens: int = 0
) -> Explanation:
    """What an engine has counted."""
    missed = _sums(families, "holdfast_missed_tokens_total", "reason")
    if not missed:
        raise EndpointError(
            f"{url.rstrip('/')}/metrics has no holdfast_missed_tokens_total",
            hint="serve with `holdfast serve`, or give a gateway's --admin-port; stock vLLM does"
            " not attribute misses",
        )
    changed = _sums(families, "holdfast_changed_prompt_tokens_total", "reason", "change")
    changed_s = _sums(families, "holdfast_changed_prompt_seconds_total", "reason", "change")
    return explain_totals(
        int(sum(_sums(families, "holdfast_cached_tokens_total").values())),
        {reason: int(tokens) for reason, tokens in missed.items()},
        _sums(families, "holdfast_lost_seconds_total", "reason"),
        cache_tokens,
        working_set_tokens,
        {cause: (int(tokens), changed_s.get(cause, 0.0)) for cause, tokens in changed.items()},
    )


def _gateway_explanation(families: Sequence[Metric]) -> Explanation:
    """What a gateway has counted of prompts that changed."""
    prompts = _sums(families, "holdfast_gateway_changed_prompts_total", "change")
    tokens = _sums(families, "holdfast_gateway_changed_prompt_tokens_total", "change")
    changes = {kind: (int(number), int(tokens.get(kind, 0))) for kind, number in prompts.items()}
    num_sent, num_skipped = (
        sum(_sums(families, f"holdfast_gateway_{name}_total").values())
        for name in ("prompts", "skipped_prompts")
    )
    actions = _actions(families, "holdfast_gateway_policy_actions_total")
    return explain_changes(int(num_sent - num_skipped), changes, actions)


def _proxy_explanation(families: Sequence[Metric]) -> Explanation:
    """What an MCP proxy has counted."""
    calls, answered, saved_s = (
        sum(_sums(families, f"holdfast_mcp_{name}_total").values())
        for name in ("calls", "answered_calls", "saved_seconds")
    )
    actions = _actions(families, "holdfast_mcp_policy_actions_total")
    return explain_calls(int(calls), int(answered), saved_s, actions)


def _actions(families: Sequence[Metric], name: str) -> dict[str, dict[str, int]]:
    """What policies did: counts by policy and action."""
    found: dict[str, dict[str, int]] = {}
    for key, number in sorted(_sums(families, name, "policy", "action").items()):
        policy, action = key.rsplit(":", 1)
        found.setdefault(policy, {})[action] = int(number)
    return found


def _sums(families: Sequence[Metric], name: str, *labels: str) -> dict[str, float]:
    """A metric's sums by the values of some labels, with colons between."""
    sums: defaultdict[str, float] = defaultdict(float)
    for family in families:
        for sample in family.samples:
            if sample.name == name:
                sums[":".join(sample.labels.get(label, "") for label in labels)] += sample.value
    return dict(sums)
