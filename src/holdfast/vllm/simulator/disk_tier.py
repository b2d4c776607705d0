"""A simulated disk tier below the host tier; its copies take simulated time.

Process: the caller's. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from vllm.v1.kv_offload.base import LookupResult, Medium, ReqContext, RequestOffloadingContext
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob
from vllm.v1.kv_offload.tiering.manager import (
    CPUPrimaryTierOffloadingManager,
    TieringOffloadingManager,
)

__all__ = ["SimulatedDisk", "tiered_manager"]

_MAX_STORE_S: Final = 2.0


class SimulatedDisk(SecondaryTierManager):  # type: ignore[misc]
    """Keys of stored blocks; like `DiskTier`, removes the least recently used first.

    It reads one block at a time and writes one at a time. It skips a write that would end later
    than two seconds from now, as `SlowDisk` does. A lookup takes no time.

    Args:
        num_blocks: Blocks that it can store (count).

    Attributes:
        num_loaded_blocks: Blocks read so far (count).
    """

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(self, primary_kv_view: memoryview, num_blocks: int) -> None:
        super().__init__(None, primary_kv_view, "SimulatedDisk")
        self._clock: Callable[[], float] = float
        self._block_s = 0.0
        self.num_loaded_blocks = 0
        self._num_blocks = num_blocks
        self._stored: OrderedDict[bytes, None] = OrderedDict()
        self._free_at_s = {True: -math.inf, False: -math.inf}  # by whether it is a load
        self._in_flight: list[tuple[float, int, TransferJob, bool]] = []

    def set_speed(self, clock: Callable[[], float], block_s: float) -> None:
        """Set the time to read or write a block (s) and its clock (s); 0 before. Mutates."""
        self._clock, self._block_s = clock, block_s

    def lookup(self, key: bytes, req_context: ReqContext) -> LookupResult:
        """See vLLM."""
        return LookupResult.HIT if key in self._stored else LookupResult.MISS

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Start to write blocks; see vLLM."""
        new = [key for key in job_metadata.keys if key not in self._stored]
        now_s = self._clock()
        queued_s = max(self._free_at_s[False] - now_s, 0.0)
        is_written = queued_s + len(new) * self._block_s <= _MAX_STORE_S
        self._start(job_metadata, len(new) if is_written else 0, is_written)

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Start to read blocks; see vLLM."""
        self.num_loaded_blocks += len(job_metadata.keys)
        self._start(job_metadata, len(job_metadata.keys), True)

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """Jobs that have ended since the last call; see vLLM."""
        results = []
        now_s = self._clock()
        while self._in_flight and self._in_flight[0][0] <= now_s:
            results.append(self._end(*heapq.heappop(self._in_flight)[2:]))
        return results

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """See vLLM."""
        return RequestOffloadingContext()

    def on_request_finished(self, req_context: ReqContext) -> None:
        """Count all blocks of the request's path as used, as `DiskTier` does."""
        self._use(key for key in req_context._offload_key_positions if key in self._stored)  # noqa: SLF001

    def drain_jobs(self) -> None:
        """End all jobs now; see vLLM."""
        self._in_flight = [(-math.inf, *entry[1:]) for entry in self._in_flight]

    def _start(self, job: TransferJob, num_blocks: int, is_written: bool) -> None:
        now_s = self._clock()
        end_s = max(now_s, self._free_at_s[job.is_promotion]) + num_blocks * self._block_s
        self._free_at_s[job.is_promotion] = end_s
        heapq.heappush(self._in_flight, (end_s, job.job_id, job, is_written))

    def _end(self, job: TransferJob, is_written: bool) -> JobResult:
        if job.is_promotion:
            read = [key for key in job.keys if key in self._stored]
            self._use(read)
            is_whole = len(read) == len(job.keys)
            return JobResult(job.job_id, is_whole, None if is_whole else tuple(read))
        if is_written:
            self._use(job.keys)
            while len(self._stored) > self._num_blocks:
                self._stored.popitem(last=False)
        return JobResult(job.job_id, is_written)

    def _use(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._stored[key] = None
            self._stored.move_to_end(key)


def tiered_manager(
    num_host_blocks: int, num_disk_blocks: int, cache_policy: str, policy_module: str
) -> TieringOffloadingManager:
    """A vLLM tier manager with a host tier without memory and a simulated disk tier."""
    host = CPUPrimaryTierOffloadingManager(
        num_chunks=num_host_blocks,
        mmap_region=_NoMemory(num_host_blocks),
        cache_policy=cache_policy,
        cache_policy_module_path=policy_module,
    )
    return TieringOffloadingManager(
        host, [SimulatedDisk(host.get_kv_memoryview(), num_disk_blocks)]
    )


class _NoMemory:
    """Replaces the host tier's shared memory by one byte a block."""

    def __init__(self, num_blocks: int) -> None:
        self._view = memoryview(bytearray(num_blocks)).cast("B", (num_blocks, 1))

    def create_kv_memoryview(self) -> memoryview:
        """A view of which only the shape is used."""
        return self._view

    def cleanup(self) -> None:
        """Release nothing."""
