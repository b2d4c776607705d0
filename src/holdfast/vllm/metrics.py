"""Holdfast's Prometheus metrics: the engine core counts, the API process serves.

vLLM runs the scheduler in a process of its own, and the API process serves `/metrics`. The engine
core (`EngineMetrics`) writes value files of prometheus-client's multi-process mode into one
directory; the API process (`publish_engine_metrics`, called by the plugin) adds them to vLLM's
metrics. With several API servers vLLM enables that mode itself, and the files go into vLLM's own
directory.

Process: engine core (`EngineMetrics`) and API server (`publish_engine_metrics`).
"""

from __future__ import annotations

import atexit
import bisect
import logging
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from holdfast.core.identity import Identity
from holdfast.core.lineage import LineageReason
from holdfast.core.miss import CHANGED_REASONS, MISS_REASONS, Attribution
from holdfast.predict.agent_calls import AgentCalls
from holdfast.runtime.watchdog import Pulse
from holdfast.vllm.metric_files import WAIT_BOUNDS_S, ValueFiles
from holdfast.vllm.metrics_directory import new_directory, open_locked, remove_abandoned

__all__ = ["EVICTION_REASONS", "METRICS_DIR_VARIABLE", "EngineMetrics", "publish_engine_metrics"]

EVICTION_REASONS: Final = (
    "unowned",
    "superseded",
    "closed",
    "human",
    "tool",
    "prefix",
    "unknown",
)
METRICS_DIR_VARIABLE: Final = "HOLDFAST_METRICS_DIR"
"""Directory through which the engine core and the API process of one server share their metrics."""

_DISAGREEMENTS: Final[Mapping[LineageReason, str]] = {
    "id": "rewritten",
    "in_engine": "concurrent",
    "other_stream": "other_stream",
}
_FLUSH_INTERVAL_S = 0.25
_FLUSHES_PER_CENSUS = 4

_logger = logging.getLogger(__name__)

_Key = tuple[str, tuple[str, ...]]  # metric, values of its labels


class EngineMetrics:
    """Counts the decisions of one scheduler; never raises into it.

    The counting methods change only a dict. A daemon thread copies changed values to the shared
    files a few times a second, also while the engine is idle.

    Args:
        directory: Directory of the value files; None exports nothing.
        policy: Name of the policy, shown as `holdfast_policy_info`.
    """

    def __init__(self, directory: Path | None, *, policy: str = "holdfast") -> None:
        self._counters: defaultdict[_Key, float] = defaultdict(float)
        self._gauges: dict[_Key, float] = {("holdfast_policy_info", (policy,)): 1.0}
        self._wait_counts = [0] * (len(WAIT_BOUNDS_S) + 1)
        self._wait_sum_s = 0.0
        self._export: ValueFiles | None = None
        self._flush_lock = threading.Lock()
        self._take_census: Callable[[], None] | None = None
        self._stop = threading.Event()
        for reason in EVICTION_REASONS:
            self._counters["holdfast_evicted_blocks", (reason,)] = 0.0
        for miss_reason in MISS_REASONS:
            self._counters["holdfast_missed_tokens", (miss_reason,)] = 0.0
        for metric in (
            "holdfast_cached_tokens",
            "holdfast_reused_blocks",
            "holdfast_admissions",
            "holdfast_guard_trips",
            "holdfast_decision_seconds",
            "holdfast_scheduler_seconds",
            "holdfast_engine_steps",
            "holdfast_oversized_requests",
        ):
            self._counters[metric, ()] = 0.0
        if directory is not None:
            self._open(directory)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] = os.environ, *, policy: str = "holdfast"
    ) -> EngineMetrics:
        """Metrics exported into the API process's directory, if there is one."""
        chosen = environ.get("PROMETHEUS_MULTIPROC_DIR") or environ.get(METRICS_DIR_VARIABLE)
        return cls(Path(chosen) if chosen else None, policy=policy)

    def watch(self, take_census: Callable[[], None]) -> None:
        """Set the gauges every second, also while the engine is idle. Mutates.

        Args:
            take_census: Sets them; called in a thread of its own, and not again after an error.
        """
        self._take_census = take_census

    def evicted(self, reason: str, num_blocks: int = 1) -> None:
        """Count evicted blocks; `reason` is one of `EVICTION_REASONS`."""
        self._counters["holdfast_evicted_blocks", (reason,)] += num_blocks

    def reused(self, num_blocks: int) -> None:
        """Count cached blocks that an admitted request reuses."""
        self._counters["holdfast_reused_blocks", ()] += num_blocks

    def attributed(self, attribution: Attribution, client: str = "") -> None:
        """Count one prompt's tokens, cached or missing for a reason, and lost time."""
        if attribution.change is not None:
            for reason in CHANGED_REASONS & attribution.missed.keys():
                labels = reason, attribution.change, client or "unknown"
                num_tokens, lost_s = attribution.missed[reason], attribution.lost_s.get(reason, 0.0)
                self._counters["holdfast_changed_prompt_tokens", labels] += num_tokens
                self._counters["holdfast_changed_prompt_seconds", labels] += lost_s
        self._counters["holdfast_cached_tokens", ()] += attribution.cached_tokens
        for reason, num_tokens in attribution.missed.items():
            self._counters["holdfast_missed_tokens", (reason,)] += num_tokens
        for reason, lost_s in attribution.lost_s.items():
            self._counters["holdfast_lost_seconds", (reason,)] += lost_s

    def admitted(self, wait_s: float) -> None:
        """Count one request admitted after `wait_s` seconds in the queue."""
        self._counters["holdfast_admissions", ()] += 1
        self._wait_counts[bisect.bisect_left(WAIT_BOUNDS_S, wait_s)] += 1
        self._wait_sum_s += wait_s

    def oversized(self) -> None:
        """Count one request that needs more KV blocks than the cache has."""
        self._counters["holdfast_oversized_requests", ()] += 1

    def fell_back(self, where: str) -> None:
        """Count one error of ours, after which vLLM's own order is used."""
        self._counters["holdfast_fallbacks", (where,)] += 1
        self.set_reserved(0)

    def hinted(self, field: str, outcome: str) -> None:
        """Count one hint of a client; both are names of ours, never a client's text."""
        self._counters["holdfast_hints", (field, outcome)] += 1

    def commanded(self, command: str, outcome: str) -> None:
        """Count one command of an application; both are names of ours."""
        self._counters["holdfast_commands", (command, outcome)] += 1

    def identified(self, identity: Identity, because: LineageReason) -> None:
        """Count one turn by client, and a prompt that disagrees with its id."""
        named = "side_call" if identity.is_side_call else "session" if identity.group else "none"
        client = identity.client or "unknown"
        self._counters["holdfast_identity_turns", (client, named)] += 1
        if because in _DISAGREEMENTS:
            self._counters["holdfast_identity_disagreements", (_DISAGREEMENTS[because],)] += 1

    def decided(self, decision_s: float) -> None:
        """Add time spent on decisions of ours (s)."""
        self._counters["holdfast_decision_seconds", ()] += decision_s

    def scheduled(self, scheduler_s: float) -> None:
        """Count one call of schedule() that took `scheduler_s` seconds with decisions."""
        self._counters["holdfast_engine_steps", ()] += 1
        self._counters["holdfast_scheduler_seconds", ()] += scheduler_s

    def set_guard_trips(self, num_trips: int) -> None:
        """Set how often the guard has set predictions aside since the start (count)."""
        self._counters["holdfast_guard_trips", ()] = num_trips

    def set_answered(self, num_by_kind: Mapping[str, int]) -> None:
        """Set the streams closed for their last answer since the start by kind (counts)."""
        for kind, num_streams in list(num_by_kind.items()):
            self._counters["holdfast_answered_streams", (kind,)] = num_streams

    def set_prefetches(self, num_by_outcome: Mapping[str, int]) -> None:
        """Set the prefetches since the start by outcome (counts)."""
        for outcome, num_prefetches in list(num_by_outcome.items()):
            self._counters["holdfast_prefetches", (outcome,)] = num_prefetches

    def set_agents(self, calls: AgentCalls, num_by_outcome: Mapping[str, int]) -> None:
        """Set how well agents' calls are predicted, and the warm-ups by outcome (counts)."""
        for outcome, num_warm_ups in list(num_by_outcome.items()):
            self._counters["holdfast_warm_ups", (outcome,)] = num_warm_ups
        self._gauges["holdfast_agent_order_predictability", ()] = calls.predictability
        self._gauges["holdfast_predictable_tenants", ()] = calls.num_predictable

    def set_compactions(
        self, counters: Mapping[tuple[str, tuple[str, ...]], float], gauges: Mapping[str, float]
    ) -> None:
        """Set what was counted of compacted sessions, and what there is now."""
        self._counters.update(counters)
        self._gauges.update({(name, ()): value for name, value in gauges.items()})

    def store_skipped(self, reason: str) -> None:
        """Count one turn that ended without a store to the host tier."""
        self._counters["holdfast_offload_skipped_turns", (reason,)] += 1

    def load_skipped(self, reason: str) -> None:
        """Count one turn that was computed although the host tier had some of its blocks."""
        self._counters["holdfast_offload_declined_turns", (reason,)] += 1

    def set_offload_enabled(self, is_enabled: bool) -> None:
        """Set whether stores and loads are enabled."""
        self._gauges["holdfast_offload_is_paying", ()] = is_enabled

    def set_queued(self, num_requests: int) -> None:
        """Set how many waiting requests admission keeps queued now."""
        self._gauges["holdfast_requests_held", ()] = num_requests

    def set_reserved(self, num_blocks: int) -> None:
        """Set how many free blocks are reserved for paused sessions now."""
        self._gauges["holdfast_reserved_blocks", ()] = num_blocks

    def set_sessions(self, num_by_state: Mapping[str, int]) -> None:
        """Set how many sessions are in each state; other states keep their value."""
        for state, num_sessions in num_by_state.items():
            self._gauges["holdfast_sessions", (state,)] = num_sessions

    def set_cache_use(
        self, hit_ratio: float | None, possible_hit_ratio: float | None, thrash_index: float | None
    ) -> None:
        """Set how well the cache is used; what is None keeps its value."""
        for name, value in (
            ("holdfast_hit_ratio", hit_ratio),
            ("holdfast_possible_hit_ratio", possible_hit_ratio),
            ("holdfast_thrash_index", thrash_index),
        ):
            if value is not None:
                self._gauges[name, ()] = value

    def alarmed(self, kind: str) -> None:
        """Count one alarm of the watchdog."""
        self._counters["holdfast_alarms", (kind,)] += 1

    def pulse(self, num_waiting: int, num_running: int) -> Pulse:
        """The counts that the watchdog looks at. Pure."""
        started = self._counters["holdfast_admissions", ()]
        return Pulse(num_waiting, num_running, started, self._counters["holdfast_engine_steps", ()])

    def snapshot(self) -> dict[str, float]:
        """The values now, keyed `metric` or `metric/label/...`; for tests and logs. Pure."""
        values = {**self._counters, **self._gauges}
        return {"/".join((metric, *labels)): v for (metric, labels), v in values.items()}

    def flush(self) -> None:
        """Write the values to the shared files; an error is logged and ends the export."""
        with self._flush_lock:
            if self._export is None:
                return
            try:
                self._write(self._export)
            except Exception:
                _logger.warning(
                    "Holdfast's metrics are not exported any more; requests are served as usual."
                    " Make space in the temporary directory and restart to export again",
                    exc_info=True,
                )
                self._end_export()

    def close(self) -> None:
        """Write the values for the last time; the API process still reads the files."""
        self._stop.set()
        self._set_gauges()
        self.flush()
        with self._flush_lock:
            self._end_export()

    def _end_export(self) -> None:
        files, self._export = self._export, None
        if files is not None:
            files.close()

    def _open(self, directory: Path) -> None:
        try:
            self._export = ValueFiles(directory, open_locked(directory))
        except OSError:
            _logger.warning(
                "Holdfast's metrics are not exported: %s cannot be written; requests are served as"
                " usual. Make the temporary directory writable and restart",
                directory,
                exc_info=True,
            )
            return
        self.flush()
        threading.Thread(target=self._flush_often, name="holdfast-metrics", daemon=True).start()

    def _flush_often(self) -> None:
        num_flushes = 0
        while not self._stop.wait(_FLUSH_INTERVAL_S):
            if num_flushes % _FLUSHES_PER_CENSUS == 0:
                self._set_gauges()
            num_flushes += 1
            self.flush()

    def _set_gauges(self) -> None:
        take_census = self._take_census
        if take_census is None:
            return
        try:
            take_census()
        except Exception:
            self._take_census = None
            _logger.warning(
                "holdfast_sessions and other gauges are not updated any more; counters are",
                exc_info=True,
            )

    def _write(self, files: ValueFiles) -> None:
        # dict.copy is atomic: the scheduler's thread may add a key meanwhile.
        for (metric, labels), value in self._counters.copy().items():
            files.write_counter(metric, labels, value)
        for (metric, labels), value in self._gauges.copy().items():
            files.write_gauge(metric, labels, value)
        files.write_wait_histogram(self._wait_counts, self._wait_sum_s)


class _EngineCollector(Collector):
    """Reads the engine cores' value files at each scrape; files may appear later."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        if not self._directory.is_dir():
            return ()
        files: Any = MultiProcessCollector
        metrics: Iterable[Metric] = files(None, str(self._directory)).collect()
        return metrics


_published: Path | None = None


def publish_engine_metrics(registry: CollectorRegistry = REGISTRY) -> Path | None:
    """Choose a directory and serve its values from `registry`. Mutates `os.environ`.

    Re-entrant: child processes use their parent's directory, and a process registers once. The
    engine core makes the directory. The process that chose it removes it at its end, or, if that
    was killed, the next server does.

    Returns:
        The directory, or None if vLLM's own multi-process mode serves the values.
    """
    global _published
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return None
    if _published is not None:
        return _published
    chosen = os.environ.get(METRICS_DIR_VARIABLE)
    if chosen is None:
        remove_abandoned()
        chosen = str(new_directory())
        os.environ[METRICS_DIR_VARIABLE] = chosen
        atexit.register(_remove_own, Path(chosen), os.getpid())
    _published = Path(chosen)
    registry.register(_EngineCollector(_published))
    return _published


def _remove_own(directory: Path, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked child inherits the handler, not the directory
        shutil.rmtree(directory, ignore_errors=True)
