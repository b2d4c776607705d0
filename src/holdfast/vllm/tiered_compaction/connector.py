"""vLLM's offloading connector, which compacts what the last tier drops.

A returning session loads full copies where there are any, and its compaction only without them.
vLLM's `MultiConnector` is no way to it: it keeps its connectors' schedulers to itself, so neither
Holdfast's scheduler nor its transfer gate would reach the tiers, and it loads from the first
connector that has any token, though a tier with a part of the placeholders does not help.

Process: scheduler and worker. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorRole,
)
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import (
    OffloadingConnectorMetadata,
)

from holdfast.errors import ConfigError
from holdfast.vllm.compaction.delegate import CompactionDelegate, Jobs
from holdfast.vllm.compaction.options import CompactionOptions
from holdfast.vllm.compaction.page_layout import StoredPage
from holdfast.vllm.offload.connector import HoldfastOffloadingConnector
from holdfast.vllm.offload.disk_tier import DiskTier
from holdfast.vllm.offload.host_policy import HostPolicy
from holdfast.vllm.offload.prefetch.placeholder_requests import is_placeholder
from holdfast.vllm.tiered_compaction.tier_copies import TierCopies

__all__ = ["TieredCompactionConnector", "TieredJobs"]


@dataclass
class TieredJobs(OffloadingConnectorMetadata):  # type: ignore[misc]
    """What a worker does in a step."""

    compaction: Jobs = field(default_factory=Jobs)


@dataclass
class StoredLayout(KVConnectorHandshakeMetadata):  # type: ignore[misc]
    """What a worker learned of its KV blocks.

    Attributes:
        pages: Where each layer is in a chunk.
    """

    pages: list[StoredPage]


class TieredCompactionConnector(HoldfastOffloadingConnector):
    """See the module.

    Attributes:
        compaction: Takes the calls that concern compaction.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        options = CompactionOptions.of(extra.get("compaction") or {})
        self.compaction = CompactionDelegate(vllm_config, role, kv_cache_config, options)
        super().__init__(vllm_config, role, kv_cache_config)
        self._loads_compaction: set[str] = set()
        self._copies: TierCopies | None = None
        if role is KVConnectorRole.SCHEDULER:
            self._copies = self._watch_tiers()

    def _watch_tiers(self) -> TierCopies:
        transfers = self.connector_scheduler
        host = getattr(transfers.manager, "primary_tier", None)
        policy = getattr(host, "_policy", None)
        below = list(getattr(transfers.manager, "secondary_tiers", ()))
        others = [one for one in below if not isinstance(one, DiskTier)]
        if host is None or not isinstance(policy, HostPolicy) or others or len(below) > 1:
            raise ConfigError(
                "sessions can be compacted before Holdfast's own host tier and pool drop them, not"
                " before other tiers do",
                hint="take the tiers of `holdfast serve`, or leave `compaction` out",
            )
        if transfers.config.blocks_per_chunk != 1 or self._canonical_layout:
            raise ConfigError(
                "sessions cannot be compacted out of tiers whose chunks have another layout than"
                " the KV cache's blocks",
                hint="leave block_size and canonical_layout out of kv_connector_extra_config",
            )
        copies = TierCopies(
            policy,
            host.get_kv_memoryview,
            below[0] if below else None,
            self.compaction.compactor([]),
            self.compaction.guard,
        )
        assert self.compaction.sessions is not None
        self.compaction.sessions.lower = copies
        return copies

    # In the worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """See vLLM's."""
        super().register_kv_caches(kv_caches)
        self.compaction.register_kv_caches(kv_caches)

    def get_handshake_metadata(self) -> StoredLayout:
        """What the scheduler must know of the worker; see vLLM's."""
        return StoredLayout(self.compaction.stored_pages())

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """See vLLM's; it is called before a step overwrites anything."""
        self.compaction.compact(kv_connector_metadata.compaction)
        super().handle_preemptions(kv_connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """See vLLM's."""
        super().start_load_kv(forward_context, **kwargs)
        self.compaction.load(self._get_connector_metadata().compaction)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """See vLLM's."""
        failed: set[int] = super().get_block_ids_with_load_errors()
        return failed | self.compaction.take_failed_blocks()

    def shutdown(self) -> None:
        """See vLLM's."""
        if self._copies is not None:
            self._copies.close()
        self.compaction.shutdown()
        super().shutdown()

    # In the scheduler.

    def set_xfer_handshake_metadata(self, metadata: dict[int, Any]) -> None:
        """Take what the worker learned; see vLLM's."""
        if self._copies is not None:
            (layout,) = metadata.values()
            self._copies.set_pages(layout.pages)

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """See vLLM's."""
        super().bind_gpu_block_pool(gpu_block_pool)
        self.compaction.attach(gpu_block_pool)

    def on_new_request(self, request: Any) -> None:
        """See vLLM's; shortens a prompt of whose prefix a compaction is left."""
        if not is_placeholder(request):
            self.compaction.arrived(request)
        super().on_new_request(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """See vLLM's."""
        found, is_async = super().get_num_new_matched_tokens(request, num_computed_tokens)
        num_needed = self.compaction.num_to_load(request, num_computed_tokens)
        if found is None or found >= num_needed:
            self._loads_compaction.discard(request.request_id)
            return found, is_async
        # Tiers have too few of its placeholders, which can be loaded but not computed.
        self._loads_compaction.add(request.request_id)
        return num_needed, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """See vLLM's."""
        if num_external_tokens:
            self.compaction.given(blocks)
        if num_external_tokens and request.request_id in self._loads_compaction:
            self.compaction.allocated(request, blocks, num_external_tokens)
            num_external_tokens = 0
        super().update_state_after_alloc(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> TieredJobs:
        """See vLLM's."""
        transfers = super().build_connector_meta(scheduler_output)
        theirs = {one.name: getattr(transfers, one.name) for one in fields(transfers)}
        return TieredJobs(**theirs, compaction=self.compaction.step_planned(scheduler_output))

    def has_pending_push_work(self) -> bool:
        """Whether a step is needed, though no request is there; see vLLM's."""
        return bool(super().has_pending_push_work()) or self.compaction.has_jobs

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, Any]:
        """See vLLM's; an answer says what of its prompt was dropped."""
        told = self._compaction_ended(request)
        is_busy, params = super().request_finished(request, block_ids)
        return is_busy, params or told

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, Any]:
        """See vLLM's; an answer says what of its prompt was dropped."""
        told = self._compaction_ended(request)
        is_busy, params = super().request_finished_all_groups(request, block_ids)
        return is_busy, params or told

    def reset_cache(self) -> bool | None:
        """See vLLM's; what was computed with earlier weights is removed."""
        self.compaction.clear()
        is_reset: bool | None = super().reset_cache()
        return is_reset

    def _compaction_ended(self, request: Any) -> dict[str, Any] | None:
        self._loads_compaction.discard(request.request_id)
        return self.compaction.ended(request)
