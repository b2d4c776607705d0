"""A KV connector that compacts paused sessions and loads them when they return.

With `holdfast serve` by the setting `compact_dir`; with stock `vllm serve`:

    --kv-transfer-config '{"kv_connector": "CompactionConnector", "kv_role": "kv_both",
      "kv_connector_module_path": "holdfast.vllm.compaction.connector",
      "kv_connector_extra_config": {"compact_dir": "/dev/shm/compactions"}}'

Process: scheduler and worker. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
)

from holdfast.errors import EngineError
from holdfast.vllm.compaction.compactor import CompactJob, Compactor, LoadJob
from holdfast.vllm.compaction.identity import identity_directory
from holdfast.vllm.compaction.options import CompactionOptions
from holdfast.vllm.compaction.page_layout import PageLayout
from holdfast.vllm.compaction.requirements import check_engine, engine_method, engine_rotation
from holdfast.vllm.compaction.sessions import CompactedSessions

__all__ = ["CompactionConnector", "CompactionJobs"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class CompactionJobs(KVConnectorMetadata):  # type: ignore[misc]
    """What a worker does in a step, before which it compacts."""

    to_compact: list[CompactJob] = field(default_factory=list)
    to_load: list[LoadJob] = field(default_factory=list)


class CompactionConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """See the module.

    Attributes:
        sessions: The scheduler's half; None in a worker.
    """

    sessions: CompactedSessions | None = None

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        check_engine(vllm_config)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._options = CompactionOptions.of(extra)
        groups = kv_cache_config.kv_cache_groups
        if len(groups) != 1:
            raise EngineError(f"sessions cannot be compacted: {len(groups)} cache groups")
        self._spec = groups[0].kv_cache_spec
        self._compactor: Compactor | None = None
        self._has_failed = False
        if role is KVConnectorRole.SCHEDULER:
            directory = identity_directory(vllm_config, Path(self._options.compact_dir))
            self.sessions = CompactedSessions(directory, self._options, self._spec.block_size)

    # In the worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """See vLLM's."""
        config = self._vllm_config
        layers = config.compilation_config.static_forward_context
        layouts = [PageLayout(layers[name], kv_caches[name], self._spec) for name in kv_caches]
        method = engine_method(self._options.compact_method)
        self._compactor = Compactor(layouts, method, engine_rotation(config))

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """See vLLM's; it is called before a step overwrites anything."""
        for job in kv_connector_metadata.to_compact:
            self._worker.compact(job)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """See vLLM's."""
        for job in self._get_connector_metadata().to_load:
            self._worker.load(job)

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
        return self._worker.take_failed_blocks()

    def shutdown(self) -> None:
        """See vLLM's."""
        if self._compactor is not None:
            self._compactor.close()
        super().shutdown()

    @property
    def _worker(self) -> Compactor:
        assert self._compactor is not None
        return self._compactor

    # In the scheduler.

    @property
    def _scheduler(self) -> CompactedSessions:
        assert self.sessions is not None
        return self.sessions

    def _guard(self, decide: Callable[[], T]) -> T | None:
        """Run a decision; an error is counted, logged once, and ends compaction."""
        if self._has_failed:
            return None
        try:
            return decide()
        except Exception:
            self._has_failed = True
            self._scheduler.counts["failed"] += 1
            logger.exception(
                "compaction failed and is off until the engine restarts; prompts are computed whole"
            )
            return None

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """See vLLM's."""
        self._scheduler.attach(gpu_block_pool)

    def on_new_request(self, request: Any) -> None:
        """See vLLM's; shortens the request's prompt if its prefix is compacted."""
        self._guard(lambda: self._scheduler.arrived(request))

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """See vLLM's."""
        return self._scheduler.num_to_load(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """See vLLM's."""
        if num_external_tokens:
            self._scheduler.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> CompactionJobs:
        """See vLLM's."""
        cached = scheduler_output.scheduled_cached_reqs
        given = [new.block_ids for new in scheduler_output.scheduled_new_reqs]
        given += [groups for groups in cached.new_block_ids if groups is not None]
        blocks = (block for groups in given for block in groups[0])
        self._guard(lambda: self._scheduler.step_planned(blocks))
        return CompactionJobs(*self._scheduler.take_jobs())

    def has_pending_push_work(self) -> bool:
        """Whether a step is needed, though no request is there; see vLLM's."""
        return self._scheduler.has_jobs

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, Any]:
        """See vLLM's; an answer says what of its prompt was dropped."""
        return False, self._guard(lambda: self._scheduler.ended(request))

    def reset_cache(self) -> bool | None:
        """See vLLM's; what was computed with earlier weights is removed."""
        if self.sessions is not None:
            self.sessions.clear()
        return True
