"""Stock vLLM scheduling with the evictions counted: both sides of a comparison share one meter.

Scheduling, queueing and eviction are vLLM's own. Process: engine core.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from holdfast.vllm.eviction_meter import watch_evictions
from holdfast.vllm.metrics import EngineMetrics

__all__ = ["CountedAsyncScheduler"]


class CountedAsyncScheduler(AsyncScheduler):  # type: ignore[misc]
    """vLLM's own scheduler, plus the counters that need no opinion: evictions, steps, time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = EngineMetrics.from_environment(policy="vllm-default")
        watch_evictions(
            self.kv_cache_manager.block_pool, lambda _block: self._metrics.evicted("unknown")
        )

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Schedule as vLLM does, timed."""
        started_s = time.perf_counter()
        output = super().schedule(*args, **kwargs)
        self._metrics.scheduled(time.perf_counter() - started_s)
        return output

    @property
    def counted(self) -> dict[str, float]:
        """What was counted, as `EngineMetrics.snapshot` gives it."""
        return self._metrics.snapshot()

    def shutdown(self) -> None:
        """Flush the counters, then shut down as vLLM does."""
        self._metrics.close()
        super().shutdown()
