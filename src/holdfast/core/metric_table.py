"""The metrics of an engine: one table for what is exported, documented and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["METRICS", "METRIC_OF", "Metric", "metrics_page"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Without the suffix of its kind.
        kind: As Prometheus has it.
        help: One sentence.
        labels: Names of its labels.
        worst: Of a gauge that does not add up, which of several engines' values is shown.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    worst: Literal["", "min", "max"] = ""

    @property
    def sample(self) -> str:
        """Name as queries have it; of a histogram, its buckets'. Pure."""
        return self.name + {"counter": "_total", "gauge": "", "histogram": "_bucket"}[self.kind]


METRICS: Final = (
    Metric(
        "holdfast_evicted_blocks",
        "counter",
        "Cached KV blocks evicted, by the state of their sessions.",
        ("reason",),
    ),
    Metric(
        "holdfast_cached_tokens",
        "counter",
        "Prompt tokens that were cached when their turns started.",
    ),
    Metric(
        "holdfast_missed_tokens",
        "counter",
        "Prompt tokens that were not cached, by reason.",
        ("reason",),
    ),
    Metric(
        "holdfast_lost_seconds",
        "counter",
        "Engine time to compute avoidable missing tokens, by reason.",
        ("reason",),
    ),
    Metric(
        "holdfast_changed_prompt_tokens",
        "counter",
        "Prompt tokens that were not cached because the prompt changed, by what changed.",
        ("reason", "change", "client"),
    ),
    Metric(
        "holdfast_changed_prompt_seconds",
        "counter",
        "Engine time to compute them.",
        ("reason", "change", "client"),
    ),
    Metric(
        "holdfast_hit_ratio",
        "gauge",
        "Share of prompt tokens that were cached, over the last turns.",
        worst="min",
    ),
    Metric(
        "holdfast_possible_hit_ratio",
        "gauge",
        "The same with an infinite cache; below it, tokens are lost.",
        worst="min",
    ),
    Metric(
        "holdfast_thrash_index",
        "gauge",
        "Tokens computed again for each new one, over the last turns.",
        worst="max",
    ),
    Metric(
        "holdfast_alarms",
        "counter",
        "Alarms of the watchdog, by kind; the log has what to do.",
        ("kind",),
    ),
    Metric("holdfast_reused_blocks", "counter", "Cached KV blocks that admitted requests reused."),
    Metric("holdfast_admissions", "counter", "Requests admitted to the running batch."),
    Metric(
        "holdfast_fallbacks",
        "counter",
        "Errors after which vLLM's own order is used; see the log.",
        ("where",),
    ),
    Metric("holdfast_decision_seconds", "counter", "Time spent on Holdfast's own decisions."),
    Metric(
        "holdfast_scheduler_seconds", "counter", "Time spent in schedule(), decisions included."
    ),
    Metric("holdfast_engine_steps", "counter", "Calls of schedule()."),
    Metric(
        "holdfast_oversized_requests",
        "counter",
        "Requests ended with an error: larger than the KV cache.",
    ),
    Metric("holdfast_policy_info", "gauge", "The policy in use, as a label.", ("policy",)),
    Metric("holdfast_requests_held", "gauge", "Waiting requests that admission keeps queued now."),
    Metric(
        "holdfast_reserved_blocks",
        "gauge",
        "Free KV blocks that are reserved for paused sessions now.",
    ),
    Metric("holdfast_sessions", "gauge", "Known sessions, by state.", ("state",)),
    Metric(
        "holdfast_answered_streams",
        "counter",
        "Sub-agents and side calls closed after their last answer.",
        ("kind",),
    ),
    Metric("holdfast_prefetches", "counter", "Prefetches of KV blocks, by outcome.", ("outcome",)),
    Metric(
        "holdfast_identity_turns",
        "counter",
        "Turns, by client and what their requests name.",
        ("client", "named"),
    ),
    Metric(
        "holdfast_identity_disagreements",
        "counter",
        "Turns whose prompt disagrees with their id, by reason.",
        ("reason",),
    ),
    Metric(
        "holdfast_warm_ups",
        "counter",
        "Prompts of predicted agents computed on an idle engine, by outcome.",
        ("outcome",),
    ),
    Metric(
        "holdfast_compactions",
        "counter",
        "Sessions compacted, by outcome.",
        ("outcome",),
    ),
    Metric(
        "holdfast_compacted_prompts",
        "counter",
        "Prompts answered from a compacted session; their answers may differ.",
    ),
    Metric(
        "holdfast_compacted_away_tokens",
        "counter",
        "Tokens of these prompts that the model did not see.",
    ),
    Metric(
        "holdfast_compaction_seconds",
        "counter",
        "Engine time spent on compacting sessions.",
    ),
    Metric("holdfast_compacted_sessions", "gauge", "Compacted sessions that can be loaded."),
    Metric("holdfast_compacted_bytes", "gauge", "Size of the files of compacted sessions."),
    Metric(
        "holdfast_agent_order_predictability",
        "gauge",
        "Share of the next agent's entropy that the last ones "
        "take away, the best of all tenants; the order of agents is used from 0.3 on.",
    ),
    Metric("holdfast_predictable_tenants", "gauge", "Tenants whose order of agents is used now."),
    Metric(
        "holdfast_hints",
        "counter",
        "Hints of clients, by field and outcome; the decision log has the reasons.",
        ("field", "outcome"),
    ),
    Metric(
        "holdfast_commands",
        "counter",
        "Commands of applications, by kind and outcome.",
        ("command", "outcome"),
    ),
    Metric("holdfast_guard_trips", "counter", "Times the prediction guard set predictions aside."),
    Metric(
        "holdfast_offload_is_paying",
        "gauge",
        "1 while KV offload is enabled, 0 while copies save no time.",
    ),
    Metric(
        "holdfast_offload_skipped_turns",
        "counter",
        "Turns not stored in the host tier, by reason.",
        ("reason",),
    ),
    Metric(
        "holdfast_offload_declined_turns",
        "counter",
        "Turns computed although blocks were stored, by reason.",
        ("reason",),
    ),
    Metric(
        "holdfast_wait_seconds",
        "histogram",
        "Time from a request's arrival in the scheduler to its admission.",
    ),
)
"""All of them, in the order in which the page lists them."""

METRIC_OF: Final[Mapping[str, Metric]] = MappingProxyType({one.name: one for one in METRICS})
"""By name."""

_PAGE_HEAD: Final = """# Metrics

What an engine with Holdfast adds to vLLM's own `/metrics`. `holdfast dashboards --output DIR`
writes a Grafana dashboard and Prometheus alert rules over them, and
[operations.md](operations.md#watching) says what to watch. This page is generated from the table
by which the engine exports them.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    """The documentation of all metrics, as Markdown. Pure."""
    rows = (
        f"| `{one.sample.removesuffix('_bucket')}` | {one.kind} |"
        f" {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n"
        for one in METRICS
    )
    return _PAGE_HEAD + "".join(rows)
