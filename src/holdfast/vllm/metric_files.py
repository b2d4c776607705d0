"""The value files through which an engine core's metrics reach the API process.

Their format is that of prometheus-client's multi-process mode. Process: engine core.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

__all__ = ["WAIT_BOUNDS_S", "ValueFiles"]

# From one schedule call to a long wait in an overloaded server.
WAIT_BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of the wait histogram (s)."""

_HELP: Final = {
    "holdfast_evicted_blocks": "Cached KV blocks evicted, by the state of their sessions.",
    "holdfast_cached_tokens": "Prompt tokens that were cached when their turns started.",
    "holdfast_missed_tokens": "Prompt tokens that were not cached, by reason.",
    "holdfast_lost_seconds": "Engine time to compute avoidable missing tokens, by reason.",
    "holdfast_hit_ratio": "Share of prompt tokens that were cached, over the last turns.",
    "holdfast_possible_hit_ratio": "The same with an infinite cache; below it, tokens are lost.",
    "holdfast_thrash_index": "Tokens computed again for each new one, over the last turns.",
    "holdfast_alarms": "Alarms of the watchdog, by kind; the log has what to do.",
    "holdfast_reused_blocks": "Cached KV blocks that admitted requests reused.",
    "holdfast_admissions": "Requests admitted to the running batch.",
    "holdfast_fallbacks": "Errors after which vLLM's own order is used; see the log.",
    "holdfast_decision_seconds": "Time spent on Holdfast's own decisions.",
    "holdfast_scheduler_seconds": "Time spent in schedule(), decisions included.",
    "holdfast_engine_steps": "Calls of schedule().",
    "holdfast_oversized_requests": "Requests ended with an error: larger than the KV cache.",
    "holdfast_policy_info": "The policy in use, as a label.",
    "holdfast_requests_held": "Waiting requests that admission keeps queued now.",
    "holdfast_sessions": "Known sessions, by state.",
    "holdfast_answered_streams": "Sub-agents and side calls closed after their last answer.",
    "holdfast_prefetches": "Prefetches of KV blocks, by outcome.",
    "holdfast_identity_turns": "Turns, by client and what their requests name.",
    "holdfast_identity_disagreements": "Turns whose prompt disagrees with their id, by reason.",
    "holdfast_warm_ups": "Prompts of predicted agents computed on an idle engine, by outcome.",
    "holdfast_agent_order_predictability": "Share of the next agent's entropy that the last ones "
    "take away, the best of all tenants; the order of agents is used from 0.3 on.",
    "holdfast_predictable_tenants": "Tenants whose order of agents is used now.",
    "holdfast_hints": "Hints of clients, by field and outcome; the decision log has the reasons.",
    "holdfast_commands": "Commands of applications, by kind and outcome.",
    "holdfast_guard_trips": "Times the prediction guard set predictions aside.",
    "holdfast_offload_is_paying": "1 while KV offload is enabled, 0 while copies save no time.",
    "holdfast_offload_skipped_turns": "Turns not stored in the host tier, by reason.",
    "holdfast_offload_declined_turns": "Turns computed although blocks were stored, by reason.",
    "holdfast_wait_seconds": "Time from a request's arrival in the scheduler to its admission.",
}

_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "holdfast_alarms": ("kind",),
    "holdfast_commands": ("command", "outcome"),
    "holdfast_evicted_blocks": ("reason",),
    "holdfast_fallbacks": ("where",),
    "holdfast_hints": ("field", "outcome"),
    "holdfast_identity_disagreements": ("reason",),
    "holdfast_identity_turns": ("client", "named"),
    "holdfast_lost_seconds": ("reason",),
    "holdfast_missed_tokens": ("reason",),
    "holdfast_offload_declined_turns": ("reason",),
    "holdfast_offload_skipped_turns": ("reason",),
    "holdfast_policy_info": ("policy",),
    "holdfast_sessions": ("state",),
    "holdfast_answered_streams": ("kind",),
    "holdfast_prefetches": ("outcome",),
    "holdfast_warm_ups": ("outcome",),
}
"""Names of the labels of metrics that have any."""


_OF_WORST: Final[Mapping[str, str]] = {
    "holdfast_hit_ratio": "gauge_livemin",
    "holdfast_possible_hit_ratio": "gauge_livemin",
    "holdfast_thrash_index": "gauge_livemax",
}
"""Gauges of several engines that do not add up, each with how the worst engine's is found."""


class ValueFiles:
    """One engine's value files, in prometheus-client's multi-process format.

    Their names have the process id and the engine's number in it: two writers would damage a file.
    """

    _numbers = itertools.count()

    def __init__(self, directory: Path, lock: io.FileIO) -> None:
        writer = f"{os.getpid()}-{next(self._numbers)}"
        self._lock = lock
        self._files = {
            kind: MmapedDict(str(directory / f"{kind}_{writer}.db"))  # type: ignore[no-untyped-call]
            for kind in ("counter", "gauge_livesum", "gauge_livemin", "gauge_livemax", "histogram")
        }
        self._keys: dict[tuple[str, str, tuple[str, ...]], str] = {}

    def close(self) -> None:
        """Close the files; their values stay."""
        for file in self._files.values():
            file.close()  # type: ignore[no-untyped-call]
        self._lock.close()

    def write_counter(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Write a counter's value, given the values of its labels."""
        self._write("counter", metric, f"{metric}_total", _named(metric, labels), value)

    def write_gauge(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Write a gauge's value, given the values of its labels."""
        kind = _OF_WORST.get(metric, "gauge_livesum")
        self._write(kind, metric, metric, _named(metric, labels), value)

    def write_wait_histogram(self, counts: list[int], sum_s: float) -> None:
        """Write how many requests waited up to each of `WAIT_BOUNDS_S`, and their sum (s)."""
        metric = "holdfast_wait_seconds"
        bounds = (*WAIT_BOUNDS_S, float("inf"))
        for bound, num_requests in zip(bounds, counts, strict=True):
            labels = {"le": floatToGoString(bound)}  # type: ignore[no-untyped-call]
            self._write("histogram", metric, f"{metric}_bucket", labels, num_requests)
        self._write("histogram", metric, f"{metric}_sum", {}, sum_s)

    def _write(
        self, kind: str, metric: str, name: str, labels: dict[str, str], value: float
    ) -> None:
        cache_key = (kind, name, tuple(labels.values()))
        key = self._keys.get(cache_key)
        if key is None:
            key = mmap_key(metric, name, list(labels), list(labels.values()), _HELP[metric])
            self._keys[cache_key] = key
        self._files[kind].write_value(key, value, 0.0)  # type: ignore[no-untyped-call]


def _named(metric: str, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(_LABELS.get(metric, ()), values, strict=True))
