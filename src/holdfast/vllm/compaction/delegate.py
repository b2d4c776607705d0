"""What a connector does for compaction, whichever of vLLM's connectors it is.

Process: scheduler and worker. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

from holdfast.errors import EngineError
from holdfast.vllm.compaction.compactor import CompactJob, Compactor, LoadJob
from holdfast.vllm.compaction.identity import identity_directory
from holdfast.vllm.compaction.options import CompactionOptions
from holdfast.vllm.compaction.page_layout import PageLayout, StoredPage
from holdfast.vllm.compaction.requirements import check_engine, engine_method, engine_rotation
from holdfast.vllm.compaction.sessions import CompactedSessions

__all__ = ["CompactionDelegate", "Jobs"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class Jobs:
    """What a worker does in a step, before which it compacts."""

    to_compact: list[CompactJob] = field(default_factory=list)
    to_load: list[LoadJob] = field(default_factory=list)


class CompactionDelegate:
    """Takes the connector's calls that concern compaction.

    Args:
        config: vLLM's `VllmConfig`.
        role: vLLM's `KVConnectorRole`.
        kv_cache_config: vLLM's `KVCacheConfig`.
        options: The settings.

    Attributes:
        sessions: The scheduler's half; None in a worker.

    Raises:
        ConfigError: The engine's sessions cannot be compacted, or the directory cannot be used.
        EngineError: There are several cache groups.
    """

    sessions: CompactedSessions | None = None

    def __init__(
        self, config: Any, role: Any, kv_cache_config: Any, options: CompactionOptions
    ) -> None:
        check_engine(config)
        groups = kv_cache_config.kv_cache_groups
        if len(groups) != 1:
            raise EngineError(f"sessions cannot be compacted: {len(groups)} cache groups")
        self._config = config
        self._options = options
        self._spec = groups[0].kv_cache_spec
        self._layer_names: list[str] = list(groups[0].layer_names)
        self._layouts: dict[str, PageLayout] = {}
        self._compactor: Compactor | None = None
        self._has_failed = False
        self._given: list[int] = []
        if role is KVConnectorRole.SCHEDULER:
            directory = identity_directory(config, Path(options.compact_dir))
            self.sessions = CompactedSessions(directory, options, self._spec.block_size)

    # In the worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Learn how each layer keeps its blocks. Mutates."""
        layers = self._config.compilation_config.static_forward_context
        self._layouts = {
            name: PageLayout(layers[name], cache, self._spec) for name, cache in kv_caches.items()
        }
        self._compactor = self.compactor(list(self._layouts.values()))

    def compactor(self, layouts: list[PageLayout]) -> Compactor:
        """A compactor with the method of the settings; pure."""
        method = engine_method(self._options.compact_method)
        return Compactor(layouts, method, engine_rotation(self._config))

    def stored_pages(self) -> list[StoredPage]:
        """Where each layer is in a chunk of a tier, in the model's order; pure.

        vLLM joins the layers' pages in the order of their cache group.

        Raises:
            EngineError: A layer's page has other memory between its keys and values.
        """
        page_bytes = self._spec.page_size_bytes
        return [
            layout.stored(self._layer_names.index(name) * page_bytes, page_bytes)
            for name, layout in self._layouts.items()
        ]

    def compact(self, jobs: Jobs) -> None:
        """Compact sessions before a step overwrites their blocks."""
        for job in jobs.to_compact:
            self._worker.compact(job)

    def load(self, jobs: Jobs) -> None:
        """Load compacted sessions before a step reads their blocks."""
        for job in jobs.to_load:
            self._worker.load(job)

    def take_failed_blocks(self) -> set[int]:
        """Blocks of loads that failed since the last call. Mutates."""
        return self._worker.take_failed_blocks()

    def shutdown(self) -> None:
        """Wait until all files are written."""
        if self._compactor is not None:
            self._compactor.close()

    @property
    def _worker(self) -> Compactor:
        assert self._compactor is not None
        return self._compactor

    # In the scheduler.

    @property
    def _scheduler(self) -> CompactedSessions:
        assert self.sessions is not None
        return self.sessions

    def guard(self, decide: Callable[[], T]) -> T | None:
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

    def attach(self, pool: Any) -> None:
        """Take the block pool of vLLM's cache manager. Mutates."""
        self._scheduler.attach(pool)

    def arrived(self, request: Any) -> None:
        """Shorten a new request's prompt if its prefix is compacted. Mutates the request."""
        self.guard(lambda: self._scheduler.arrived(request))

    def num_to_load(self, request: Any, num_computed: int) -> int:
        """Tokens of a compaction that a request still needs (count). Pure."""
        return self._scheduler.num_to_load(request, num_computed)

    def allocated(self, request: Any, blocks: Any, num_tokens: int) -> None:
        """Load a compaction into a request's `KVCacheBlocks`. Mutates."""
        self._scheduler.allocated(request, blocks.get_block_ids()[0], num_tokens)

    def given(self, blocks: Any) -> None:
        """Note a request's `KVCacheBlocks`, into which the planned step loads. Mutates.

        vLLM schedules such a request only once they are overwritten.
        """
        self._given += blocks.get_block_ids()[0]

    def step_planned(self, scheduler_output: Any) -> Jobs:
        """Take the jobs of a step. Mutates."""
        cached = scheduler_output.scheduled_cached_reqs
        given = [new.block_ids for new in scheduler_output.scheduled_new_reqs]
        given += [groups for groups in cached.new_block_ids if groups is not None]
        blocks = [*self._given, *(block for groups in given for block in groups[0])]
        self._given = []
        self.guard(lambda: self._scheduler.step_planned(blocks))
        return Jobs(*self._scheduler.take_jobs())

    @property
    def has_jobs(self) -> bool:
        """Whether a worker has something to do that no request waits for."""
        return self._scheduler.has_jobs

    def ended(self, request: Any) -> dict[str, Any] | None:
        """Take in that a request has ended; returns parameters for its answer. Mutates."""
        return self.guard(lambda: self._scheduler.ended(request))

    def clear(self) -> None:
        """Remove all compactions, as weights may have changed. Mutates."""
        if self.sessions is not None:
            self.sessions.clear()
