"""A KV connector that compacts paused sessions and loads them when they return.

With `holdfast serve` by the setting `compact_dir`; with stock `vllm serve`:

    --kv-transfer-config '{"kv_connector": "CompactionConnector", "kv_role": "kv_both",
      "kv_connector_module_path": "holdfast.vllm.compaction.connector",
      "kv_connector_extra_config": {"compact_dir": "/dev/shm/compactions"}}'

Process: scheduler and worker. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
)

from holdfast.vllm.compaction.delegate import CompactionDelegate, Jobs
from holdfast.vllm.compaction.options import CompactionOptions

__all__ = ["CompactionConnector", "CompactionJobs"]


@dataclass
class CompactionJobs(KVConnectorMetadata):  # type: ignore[misc]
    """What a worker does in a step."""

    jobs: Jobs = field(default_factory=Jobs)


class CompactionConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """See the module.

    Attributes:
        compaction: Takes the calls.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        options = CompactionOptions.of(vllm_config.kv_transfer_config.kv_connector_extra_config)
        self.compaction = CompactionDelegate(vllm_config, role, kv_cache_config, options)

    # In the worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """See vLLM's."""
        self.compaction.register_kv_caches(kv_caches)

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """See vLLM's; it is called before a step overwrites anything."""
        self.compaction.compact(kv_connector_metadata.jobs)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """See vLLM's."""
        self.compaction.load(self._get_connector_metadata().jobs)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Do nothing: loads are over when they have started."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Do nothing: only paused sessions are stored."""

    def wait_for_save(self) -> None:
        """Do nothing: blocks are read before the step."""

    def get_block_ids_with_load_errors(self) -> set[int]:
        """See vLLM's."""
        return self.compaction.take_failed_blocks()

    def shutdown(self) -> None:
        """See vLLM's."""
        self.compaction.shutdown()
        super().shutdown()

    # In the scheduler.

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """See vLLM's."""
        self.compaction.attach(gpu_block_pool)

    def on_new_request(self, request: Any) -> None:
        """See vLLM's; shortens the request's prompt if its prefix is compacted."""
        self.compaction.arrived(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """See vLLM's."""
        return self.compaction.num_to_load(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """See vLLM's."""
        if num_external_tokens:
            self.compaction.allocated(request, blocks, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> CompactionJobs:
        """See vLLM's."""
        return CompactionJobs(self.compaction.step_planned(scheduler_output))

    def has_pending_push_work(self) -> bool:
        """Whether a step is needed, though no request is there; see vLLM's."""
        return self.compaction.has_jobs

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, Any]:
        """See vLLM's; an answer says what of its prompt was dropped."""
        return False, self.compaction.ended(request)

    def reset_cache(self) -> bool | None:
        """See vLLM's; what was computed with earlier weights is removed."""
        self.compaction.clear()
        return True
