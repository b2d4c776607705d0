"""vLLM's own scheduler with Holdfast's counters, for comparisons.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from holdfast.vllm.eviction_meter import watch_evictions
from holdfast.vllm.metrics import EngineMetrics

__all__ = ["CountedAsyncScheduler"]


class CountedAsyncScheduler(AsyncScheduler):  # type: ignore[misc]
    """vLLM's own scheduler that counts evictions, steps and their time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = EngineMetrics.from_environment(policy="vllm-default")
        watch_evictions(
            self.kv_cache_manager.block_pool, lambda _block: self._metrics.evicted("unknown")
        )

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one engine step; see vLLM."""
        started_s = time.perf_counter()
        output = super().schedule(*args, **kwargs)
        self._metrics.scheduled(time.perf_counter() - started_s)
        return output

    @property
    def counted(self) -> dict[str, float]:
        """The counters; see `EngineMetrics.snapshot`."""
        return self._metrics.snapshot()

    def shutdown(self) -> None:
        """Write the counters and end; see vLLM."""
        self._metrics.close()
        super().shutdown()
