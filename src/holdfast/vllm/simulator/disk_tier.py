"""A tier below the virtual host: vLLM's own staging by way of the host, and reads that take time.

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

_LONGEST_STORE_S: Final = 2.0


class SimulatedDisk(SecondaryTierManager):  # type: ignore[misc]
    """Blocks under their keys, the longest unused removed first, as `DiskTier` does with files.

    Reads follow one after the other, and so do writes; a write that would end later than two
    seconds from now is left out, as with `SlowDisk`. Looking a block up takes no time.

    Args:
        num_blocks: Blocks that it holds (count).

    Attributes:
        num_loaded_blocks: Blocks read since it was made (count).
    """

    medium: ClassVar[Medium] = Medium.STORAGE

    def __init__(self, primary_kv_view: memoryview, num_blocks: int) -> None:
        super().__init__(None, primary_kv_view, "SimulatedDisk")
        self._clock: Callable[[], float] = float
        self._block_s = 0.0
        self.num_loaded_blocks = 0
        self._num_blocks = num_blocks
        self._kept: OrderedDict[bytes, None] = OrderedDict()
        self._free_at_s = {True: -math.inf, False: -math.inf}  # by whether it is a load
        self._under_way: list[tuple[float, int, TransferJob, bool]] = []

    def set_speed(self, clock: Callable[[], float], block_s: float) -> None:
        """Say what reading or writing a block takes (s) on which clock (s); nothing until then."""
        self._clock, self._block_s = clock, block_s

    def lookup(self, key: bytes, req_context: ReqContext) -> LookupResult:
        """See vLLM."""
        return LookupResult.HIT if key in self._kept else LookupResult.MISS

    def submit_store(self, job_metadata: TransferJob) -> None:
        """Begin to write blocks; see vLLM."""
        new = [key for key in job_metadata.keys if key not in self._kept]
        now_s = self._clock()
        backlog_s = max(self._free_at_s[False] - now_s, 0.0)
        is_written = backlog_s + len(new) * self._block_s <= _LONGEST_STORE_S
        self._begin(job_metadata, len(new) if is_written else 0, is_written)

    def submit_load(self, job_metadata: TransferJob) -> None:
        """Begin to read blocks; see vLLM."""
        self.num_loaded_blocks += len(job_metadata.keys)
        self._begin(job_metadata, len(job_metadata.keys), True)

    def get_finished_jobs(self) -> Iterable[JobResult]:
        """Jobs that have ended by now; see vLLM."""
        results = []
        now_s = self._clock()
        while self._under_way and self._under_way[0][0] <= now_s:
            results.append(self._end(*heapq.heappop(self._under_way)[2:]))
        return results

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """See vLLM."""
        return RequestOffloadingContext()

    def on_request_finished(self, req_context: ReqContext) -> None:
        """Count all blocks of the request's chain as used, as `DiskTier` does."""
        self._use(key for key in req_context._offload_key_positions if key in self._kept)  # noqa: SLF001

    def drain_jobs(self) -> None:
        """Let what is under way end now; see vLLM."""
        self._under_way = [(-math.inf, *entry[1:]) for entry in self._under_way]

    def _begin(self, job: TransferJob, num_blocks: int, is_written: bool) -> None:
        now_s = self._clock()
        end_s = max(now_s, self._free_at_s[job.is_promotion]) + num_blocks * self._block_s
        self._free_at_s[job.is_promotion] = end_s
        heapq.heappush(self._under_way, (end_s, job.job_id, job, is_written))

    def _end(self, job: TransferJob, is_written: bool) -> JobResult:
        if job.is_promotion:
            kept = [key for key in job.keys if key in self._kept]
            self._use(kept)
            is_whole = len(kept) == len(job.keys)
            return JobResult(job.job_id, is_whole, None if is_whole else tuple(kept))
        if is_written:
            self._use(job.keys)
            while len(self._kept) > self._num_blocks:
                self._kept.popitem(last=False)
        return JobResult(job.job_id, is_written)

    def _use(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._kept[key] = None
            self._kept.move_to_end(key)


def tiered_manager(
    num_host_blocks: int, num_disk_blocks: int, cache_policy: str, policy_module: str
) -> TieringOffloadingManager:
    """VLLM's manager of a host tier and a virtual disk below it, with no memory behind them."""
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
    """In place of the host tier's shared memory: a byte a block, which nobody reads."""

    def __init__(self, num_blocks: int) -> None:
        self._view = memoryview(bytearray(num_blocks)).cast("B", (num_blocks, 1))

    def create_kv_memoryview(self) -> memoryview:
        """Its shape is all that is used of it."""
        return self._view

    def cleanup(self) -> None:
        """There is nothing to release."""
