"""Noticing that the disk cannot keep up, for vLLM's back-pressure on tiers.

vLLM's own detector divides the time until the engine takes note of a store by the store's size. The
engine takes note once a step, so that single blocks, which decoding stores, look as slow as a step
is long, and a sound disk is throttled. What matters is whether stores pile up: while they do, they
hold on to chunks of the host tier.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import time
from typing import Any, Final

from vllm.v1.kv_offload.tiering.backpressure import BackpressureDetector, DropStorePolicy

__all__ = ["SlowDisk"]

_LONGEST_STORE_S: Final = 2.0


class SlowDisk(BackpressureDetector):  # type: ignore[misc]
    """Pressure while the oldest store under way is older than two seconds; stores are left out.

    Args:
        policy: What to do then; see vLLM.
    """

    def __init__(self, policy: Any | None = None) -> None:
        super().__init__(policy or DropStorePolicy())
        self._begun_s: dict[int, float] = {}

    def begin(self, job_id: int) -> None:
        """A store was handed to the disk."""
        self._begun_s[job_id] = time.monotonic()

    def end(self, job_id: int) -> None:
        """It ended, however; called by any thread."""
        self._begun_s.pop(job_id, None)

    def is_under_pressure(self) -> bool:
        """Whether stores are piling up."""
        oldest_s = next(iter(list(self._begun_s.values())), None)
        return oldest_s is not None and time.monotonic() - oldest_s > _LONGEST_STORE_S

    def on_store_completed(self, elapsed_s: float, num_bytes: int) -> None:
        """See vLLM; says when the engine took note, which is too late to be of use."""

    def reset(self) -> None:
        """Forget what was left out; stores under way stay under way."""
        self.policy.reset()
