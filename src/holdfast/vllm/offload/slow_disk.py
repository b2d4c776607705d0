"""Back-pressure for vLLM's tiers while the disk is too slow.

vLLM's own detector divides the time until the engine polls a store by the store's size. The engine
polls once a step, so single blocks, which decoding stores, seem to take as long as a step, and a
fast disk is throttled. This detector looks at the oldest store in flight instead: stores that pile
up hold chunks of the host tier.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import time
from typing import Any, Final

from vllm.v1.kv_offload.tiering.backpressure import BackpressureDetector, DropStorePolicy

__all__ = ["SlowDisk"]

_MAX_STORE_S: Final = 2.0


class SlowDisk(BackpressureDetector):  # type: ignore[misc]
    """Skips new stores while the oldest store in flight is older than two seconds.

    Args:
        policy: vLLM's reaction to pressure; None skips stores.
    """

    def __init__(self, policy: Any | None = None) -> None:
        super().__init__(policy or DropStorePolicy())
        self._started_s: dict[int, float] = {}

    def store_started(self, job_id: int) -> None:
        """Record that a store was handed to the disk. Mutates."""
        self._started_s[job_id] = time.monotonic()

    def store_ended(self, job_id: int) -> None:
        """Record that a store has succeeded or failed. Mutates; any thread may call it."""
        self._started_s.pop(job_id, None)

    def is_under_pressure(self) -> bool:
        """Whether stores pile up."""
        oldest_s = next(iter(list(self._started_s.values())), None)
        return oldest_s is not None and time.monotonic() - oldest_s > _MAX_STORE_S

    def on_store_completed(self, elapsed_s: float, num_bytes: int) -> None:
        """Ignore it: vLLM calls this when the engine polls, not when the store ends."""

    def reset(self) -> None:
        """Forget skipped stores; stores in flight still count."""
        self.policy.reset()
