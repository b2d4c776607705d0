"""A Grafana dashboard and Prometheus alert rules over an engine's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

__all__ = ["ALERTS", "PANELS", "Alert", "Panel", "Query", "alert_rules", "grafana_dashboard"]

_COLUMNS: Final = 2
_WIDTH: Final = 12
_HEIGHT: Final = 8
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_SELECTED: Final = '{instance=~"$instance"}'


@dataclass(frozen=True, slots=True)
class Query:
    """One line or area of a panel: its query, and its name by labels."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows.
        unit: As Grafana names units.
        queries: Its lines.
        is_stacked: Whether they add up.
        meaning: What to read from it.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    is_stacked: bool = False
    meaning: str = ""


def _rate(metric: str, by: str = "") -> str:
    """Increase of a counter a second, over the interval that Grafana chooses."""
    inner = f"rate({metric}{_SELECTED}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def _quantile(quantile: float) -> str:
    buckets = _rate("holdfast_wait_seconds_bucket", "le")
    return f"histogram_quantile({quantile}, {buckets})"


def _ratio(part: str, whole: str) -> str:
    return f"{_rate(part)} / {_rate(whole)}"


PANELS: Final[tuple[Panel, ...]] = (
    Panel(
        "Hit ratio, and what an infinite cache would have",
        "percentunit",
        (
            Query(f"min(holdfast_hit_ratio{_SELECTED})", "cached"),
            Query(f"min(holdfast_possible_hit_ratio{_SELECTED})", "possible"),
        ),
        meaning="The gap is lost to evictions; holdfast explain has the causes.",
    ),
    Panel(
        "Prompt tokens not cached, by reason",
        "short",
        (Query(_rate("holdfast_missed_tokens_total", "reason"), "{{reason}}"),),
        is_stacked=True,
    ),
    Panel(
        "Engine time lost to avoidable misses, by reason",
        "s",
        (Query(_rate("holdfast_lost_seconds_total", "reason"), "{{reason}}"),),
        is_stacked=True,
        meaning="Seconds a second: 0.3 is a third of the engine.",
    ),
    Panel(
        "Thrash index",
        "short",
        (Query(f"max(holdfast_thrash_index{_SELECTED})", "recomputed a new token"),),
    ),
    Panel(
        "Evicted blocks, by the state of their sessions",
        "short",
        (Query(_rate("holdfast_evicted_blocks_total", "reason"), "{{reason}}"),),
        is_stacked=True,
    ),
    Panel(
        "Sessions, by state",
        "short",
        (Query(f"sum by (state) (holdfast_sessions{_SELECTED})", "{{state}}"),),
        is_stacked=True,
    ),
    Panel(
        "Admissions and queued turns",
        "short",
        (
            Query(_rate("holdfast_admissions_total"), "admitted a second"),
            Query(f"sum(holdfast_requests_held{_SELECTED})", "queued by admission"),
        ),
    ),
    Panel(
        "KV blocks reserved for paused sessions",
        "short",
        (Query(f"sum(holdfast_reserved_blocks{_SELECTED})", "reserved"),),
        meaning="They start warm; a turn that is due may take them.",
    ),
    Panel(
        "Wait for admission",
        "s",
        tuple(Query(_quantile(share), f"p{share * 100:.0f}") for share in (0.5, 0.9, 0.99)),
    ),
    Panel(
        "Prefetches, by outcome",
        "short",
        (Query(_rate("holdfast_prefetches_total", "outcome"), "{{outcome}}"),),
        is_stacked=True,
    ),
    Panel(
        "Tiers: turns not stored or not loaded, by reason",
        "short",
        (
            Query(_rate("holdfast_offload_skipped_turns_total", "reason"), "no store: {{reason}}"),
            Query(_rate("holdfast_offload_declined_turns_total", "reason"), "no load: {{reason}}"),
        ),
    ),
    Panel(
        "Decisions' share of schedule()",
        "percentunit",
        (
            Query(
                _ratio("holdfast_decision_seconds_total", "holdfast_scheduler_seconds_total"),
                "decisions",
            ),
        ),
    ),
    Panel(
        "Guard, fallbacks, alarms, oversized requests",
        "short",
        (
            Query(f"sum(holdfast_guard_trips_total{_SELECTED})", "guard trips"),
            Query(f"sum(holdfast_fallbacks_total{_SELECTED}) or vector(0)", "fallbacks"),
            Query(f"sum by (kind) (holdfast_alarms_total{_SELECTED})", "alarm: {{kind}}"),
            Query(f"sum(holdfast_oversized_requests_total{_SELECTED})", "oversized"),
        ),
    ),
    Panel(
        "Hints, by outcome",
        "short",
        (Query(_rate("holdfast_hints_total", "outcome"), "{{outcome}}"),),
        is_stacked=True,
    ),
    Panel(
        "Turns, by what their requests name",
        "short",
        (Query(_rate("holdfast_identity_turns_total", "named"), "{{named}}"),),
        is_stacked=True,
    ),
)
"""The panels, in reading order."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert rule.

    Attributes:
        name: Its name.
        expression: Query that has a value while it holds.
        lasts: How long it must hold, as Prometheus writes times.
        severity: "warning" or "critical".
        summary: What happens.
        remedy: What to do.
    """

    name: str
    expression: str
    lasts: str
    severity: str
    summary: str
    remedy: str


ALERTS: Final[tuple[Alert, ...]] = (
    Alert(
        "HoldfastThrashing",
        "holdfast_thrash_index > 0.5 and holdfast_possible_hit_ratio - holdfast_hit_ratio > 0.1",
        "10m",
        "warning",
        "The KV cache thrashes: prompt tokens are computed again and again.",
        "Run holdfast explain; fewer sessions at once, more cache memory, or a host tier.",
    ),
    Alert(
        "HoldfastFellBack",
        "holdfast_fallbacks_total > 0",
        "0m",
        "critical",
        "Holdfast failed and is off until the engine restarts; requests go on.",
        "Send the traceback in the engine's log to Holdfast's developers, and restart.",
    ),
    Alert(
        "HoldfastStandsStill",
        'increase(holdfast_alarms_total{kind=~"no_starts|no_steps"}[10m]) > 0',
        "0m",
        "critical",
        "Turns wait or run, and the engine makes no progress.",
        "See the engine's log for errors of a worker, a tier or a connector; restart the engine.",
    ),
    Alert(
        "HoldfastTurnsQueued",
        "min_over_time(holdfast_requests_held[15m]) > 0",
        "15m",
        "warning",
        "Turns have been queued for a quarter of an hour: too many sessions for the cache.",
        "Add an engine, cache memory or a host tier.",
    ),
    Alert(
        "HoldfastOversizedRequests",
        "increase(holdfast_oversized_requests_total[10m]) > 0",
        "0m",
        "warning",
        "Clients send requests that are larger than the KV cache.",
        "Lower --max-model-len, or give the cache more memory.",
    ),
    Alert(
        "HoldfastPredictionsSetAside",
        "increase(holdfast_guard_trips_total[1h]) > 3",
        "0m",
        "warning",
        "The prediction guard keeps setting predictions aside: LRU would have hit more.",
        "See the log; a workload without agents gains nothing from predictions.",
    ),
)
"""The alert rules."""


def grafana_dashboard() -> bytes:
    """The dashboard as Grafana imports it. Pure."""
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "instance",
            "type": "query",
            "label": "engine",
            "datasource": _SOURCE,
            "query": "label_values(holdfast_engine_steps_total, instance)",
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]
    dashboard = {
        "uid": "holdfast",
        "title": "Holdfast",
        "tags": ["vllm", "kv-cache"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_drawn(number, panel) for number, panel in enumerate(PANELS)],
    }
    return msgspec.json.format(msgspec.json.encode(dashboard), indent=1) + b"\n"


def _drawn(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    lines = {"fillOpacity": 20 if panel.is_stacked else 0}
    if panel.is_stacked:
        lines["stacking"] = {"mode": "normal"}  # type: ignore[assignment]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": lines}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def alert_rules() -> bytes:
    """The rules as Prometheus reads them: JSON, which is YAML. Pure."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "description": alert.remedy},
        }
        for alert in ALERTS
    ]
    groups = {"groups": [{"name": "holdfast", "rules": rules}]}
    return msgspec.json.format(msgspec.json.encode(groups), indent=1) + b"\n"
