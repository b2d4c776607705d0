"""A simulated host tier: vLLM's bookkeeping, no memory, copies in simulated time.

Process: the caller's. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import heapq
import math
from typing import Any, Final

from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingWorkerMetadata
from vllm.v1.kv_offload.base import CanonicalKVCaches, OffloadingSpec, OffloadingWorker
from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager
from vllm.v1.kv_offload.tiering.manager import TieringOffloadingManager
from vllm.v1.outputs import KVConnectorOutput

from holdfast.vllm.simulator.disk_tier import tiered_manager

__all__ = ["HostLink", "SimulatedHostSpec", "simulated_host_config"]

_POLICY_MODULE: Final = "holdfast.vllm.offload.host_policy"


def simulated_host_config(
    num_blocks: int, cache_policy: str, num_disk_blocks: int = 0
) -> KVTransferConfig:
    """The configuration of an engine with a simulated host tier. Pure.

    Args:
        num_blocks: Blocks that the tier can store (count).
        cache_policy: `lru` or `arc`, vLLM's own, or `HostPolicy`.
        num_disk_blocks: Blocks that a disk tier below it can store (count); 0 for no disk.
    """
    return KVTransferConfig(
        kv_connector="HoldfastOffloadingConnector",
        kv_connector_module_path="holdfast.vllm.offload.connector",
        kv_role="kv_both",
        kv_connector_extra_config={
            "spec_name": "SimulatedHostSpec",
            "spec_module_path": __name__,
            "num_chunks": num_blocks,
            "num_disk_chunks": num_disk_blocks,
            "eviction_policy": cache_policy,
            "cache_policy_module_path": _POLICY_MODULE,
            "offload_prompt_only": False,
        },
    )


class SimulatedHostSpec(OffloadingSpec):  # type: ignore[misc]
    """An offloading spec whose tiers have no memory and no worker."""

    def get_manager(self) -> CPUOffloadingManager | TieringOffloadingManager:
        """VLLM's own manager. Process: scheduler."""
        extra = self.extra_config
        num_chunks, num_disk_chunks = extra["num_chunks"], extra["num_disk_chunks"]
        policy, module = extra["eviction_policy"], extra["cache_policy_module_path"]
        if num_disk_chunks:
            return tiered_manager(num_chunks, num_disk_chunks, policy, module)
        return CPUOffloadingManager(
            num_chunks=num_chunks, cache_policy=policy, cache_policy_module_path=module
        )

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """Raise: a simulated engine has no worker."""
        raise NotImplementedError("a simulated engine has no worker")


class HostLink:
    """The link between KV cache and host tier: one load and one store at a time.

    Args:
        block_s: Time to copy one KV block (s); with 0 every copy ends at once.

    Attributes:
        num_loaded_blocks: Blocks loaded so far (count).
    """

    def __init__(self, block_s: float = 0.0) -> None:
        self.num_loaded_blocks = 0
        self._loaded_for: dict[str, int] = {}
        self._block_s = block_s
        self._free_at_s = {True: -math.inf, False: -math.inf}  # by whether it is a load
        self._in_flight: list[tuple[float, int]] = []
        self._ends_s: dict[int, float] = {}
        # The loading request, None for a store; copy time (s).
        self._copies: dict[int, tuple[str | None, float]] = {}

    def start(self, transfers: Any, now_s: float) -> float:
        """Start the copies of a step. Mutates.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`.
            now_s: Time now (s).

        Returns:
            Time that the step waits for earlier copies (s).
        """
        for number, job in transfers.load_jobs.items():
            num_blocks = len(job.dst_spec.block_ids)
            self.num_loaded_blocks += num_blocks
            self._loaded_for[job.req_id] = self._loaded_for.get(job.req_id, 0) + num_blocks
            self._enter(number, num_blocks, now_s, job.req_id)
        for number, job in transfers.store_jobs.items():
            self._enter(number, len(job.src_spec.block_ids), now_s, None)
        waited_for = [self._ends_s.get(i, now_s) for i in transfers.jobs_to_flush or ()]
        return max([now_s, *waited_for]) - now_s

    def take_loaded(self, request_id: str) -> int:
        """Blocks loaded for a request since this was last asked (count). Mutates."""
        return self._loaded_for.pop(request_id, 0)

    def take_finished(self, now_s: float) -> KVConnectorOutput | None:
        """A worker's report of the copies that have ended; None if none has. Mutates."""
        report = OffloadingWorkerMetadata()
        received = set()
        while self._in_flight and self._in_flight[0][0] <= now_s:
            _, number = heapq.heappop(self._in_flight)
            del self._ends_s[number]
            report.mark_completed(number)
            request_id, copy_s = self._copies.pop(number)
            stats = report.transfer_stats
            (stats.store if request_id is None else stats.load).record(1, copy_s)
            if request_id is not None:
                received.add(request_id)
        if not report.completed_jobs:
            return None
        return KVConnectorOutput(finished_recving=received, kv_connector_worker_meta=report)

    def _enter(self, number: int, num_blocks: int, now_s: float, request_id: str | None) -> None:
        copy_s = num_blocks * self._block_s
        is_load = request_id is not None
        end_s = max(now_s, self._free_at_s[is_load]) + copy_s
        self._free_at_s[is_load] = self._ends_s[number] = end_s
        self._copies[number] = request_id, copy_s
        heapq.heappush(self._in_flight, (end_s, number))
