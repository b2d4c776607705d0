"""The disk tier: vLLM's `fs` tier on a pool directory that outlives the engine.

File names, lookups, threads and jobs are vLLM's. This tier adds identities, which keep blocks of
different engines apart (`model_identity`), a check of each loaded block (`block_file`), and bounds
on bytes and age (`GarbageCollector`). A block whose file fails is counted and computed again; the
request never fails.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import OffloadingConnectorStats
from vllm.v1.kv_offload.file_mapper import FileMapper
from vllm.v1.kv_offload.tiering.base import JobResult
from vllm.v1.kv_offload.tiering.fs.manager import FileSystemTierManager

from holdfast.errors import ConfigError
from holdfast.pool.block_file import FOOTER_BYTES, BlockState, read_block, write_block
from holdfast.pool.collector import GarbageCollector
from holdfast.pool.directory import PoolDirectory
from holdfast.vllm.offload.connector import engine_being_built
from holdfast.vllm.offload.model_identity import check_persistable, model_identity
from holdfast.vllm.offload.slow_disk import SlowDisk
from holdfast.vllm.offload.tier_metrics import METRICS, record

__all__ = ["DiskTier"]

_logger = logging.getLogger(__name__)

_MAX_READ_THREADS: Final = 8
_MAX_WRITE_THREADS: Final = 4
_MAX_FAILED: Final = 1 << 16
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITTEN: Final = (
    "blocks are not written to the pool (%s); requests are served as usual, and the blocks are"
    " counted in holdfast_pool_skipped_blocks: make space or fix the disk of pool_dir"
)
_NOT_READ: Final = (
    "blocks are not read from the pool (%s); they are computed again, and counted in"
    " holdfast_pool_refused_blocks: check the disk of pool_dir"
)


@dataclass(slots=True)
class _Job:
    """One of vLLM's jobs: blocks to read or to write.

    Attributes:
        keys: vLLM's keys of the blocks.
        is_load: Whether it reads.
        is_done: Whether each block is read or written; one thread sets each.
    """

    keys: Sequence[bytes]
    is_load: bool
    is_done: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.is_done = [False] * len(self.keys)


class DiskTier(FileSystemTierManager):  # type: ignore[misc]
    """vLLM's `FileSystemTierManager` on a pool.

    Args:
        offloading_spec: vLLM's.
        primary_kv_view: The host tier's memory.
        tier_type: Name of this tier in vLLM's metrics.
        pool_dir: The pool's directory; made if it is missing.
        pool_bytes: Bytes that the pool may have, of all engines together; None sets no bound.
        ttl_s: Age at which an unused block expires (s); None for never.
        backpressure_detector: vLLM's; a `SlowDisk` learns of each store.

    Attributes:
        before_removed: Called with each file that this engine is about to remove for space, in a
            thread of the pool.
        block_bytes: Size of a block.

    Raises:
        ConfigError: The directory cannot be used, a block exceeds `pool_bytes`, or the KV of this
            engine cannot be told apart from another's.
    """

    before_removed: Callable[[str], None] | None = None

    def __init__(
        self,
        offloading_spec: Any,
        primary_kv_view: memoryview,
        tier_type: str,
        pool_dir: str,
        pool_bytes: int | None = None,
        ttl_s: float | None = None,
        backpressure_detector: Any | None = None,
    ) -> None:
        engine = engine_being_built()
        if engine is None:
            raise ConfigError(
                "a pool needs HoldfastOffloadingConnector, which knows the engine's configuration",
                hint="name it in kv_transfer_config, or use `holdfast serve`, which does",
            )
        check_persistable(engine.vllm)
        self._num_file_bytes = offloading_spec.kv_bytes_per_chunk + FOOTER_BYTES
        if pool_bytes is not None and pool_bytes < self._num_file_bytes:
            raise ConfigError(
                f"a pool of {pool_bytes:,} bytes is smaller than one block"
                f" ({self._num_file_bytes:,} bytes)",
                hint="raise pool_gib",
            )
        self._directory = PoolDirectory.make(Path(pool_dir).absolute())
        run_config = _file_mapper(str(self._directory.path), offloading_spec).get_run_config()
        self._identity = model_identity(engine, offloading_spec, run_config)
        root = self._directory.directory_of(self._identity)
        self._directory.make_directory(root, self._identity)
        num_cpus = os.cpu_count() or 1
        super().__init__(
            offloading_spec,
            primary_kv_view,
            tier_type,
            root_dir=str(root),
            n_read_threads=min(_MAX_READ_THREADS, num_cpus),
            n_write_threads=min(_MAX_WRITE_THREADS, num_cpus),
            locality="LOCAL",
            backpressure_detector=backpressure_detector,
        )
        self._bytes = primary_kv_view.cast("B")
        self._ttl_s = ttl_s
        self._jobs: dict[int, _Job] = {}
        self._slow_disk = backpressure_detector
        self._failed: dict[bytes, None] = {}  # blocks that could not be loaded, oldest first
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counts_lock = threading.Lock()
        self._logged: set[str] = set()
        self._collector = self._started_collector(pool_bytes)
        _logger.info("pool %s, identity %s", pool_dir, self._identity.name)

    # Calls of vLLM.

    @classmethod
    def build_metric_definitions(cls, extra_config: dict[str, Any]) -> dict[str, Any]:
        """See vLLM."""
        return dict(METRICS)

    def submit_store(self, job_metadata: Any) -> None:
        """Start to write blocks; see vLLM."""
        if isinstance(self._slow_disk, SlowDisk):
            self._slow_disk.store_started(job_metadata.job_id)
        job = self._jobs[job_metadata.job_id] = _Job(list(job_metadata.keys), is_load=False)
        task = functools.partial(self._store, job_metadata.job_id, job, job_metadata.chunk_ids)
        self._pool.enqueue_store(job_metadata.job_id, 1, [task])

    def submit_load(self, job_metadata: Any) -> None:
        """Start to read blocks with several threads; see vLLM."""
        job = self._jobs[job_metadata.job_id] = _Job(list(job_metadata.keys), is_load=True)
        num_tasks = min(_MAX_READ_THREADS, os.cpu_count() or 1, len(job.keys)) or 1
        tasks = [
            functools.partial(self._load, job, job_metadata.chunk_ids, first, num_tasks)
            for first in range(num_tasks)
        ]
        self._pool.enqueue_load(job_metadata.job_id, num_tasks, tasks)

    def get_finished_jobs(self) -> Iterable[Any]:
        """Jobs that have ended since the last call; see vLLM."""
        results = []
        for job_id, _, transfer_time_s in self._pool.get_finished():
            job = self._jobs.pop(job_id)
            done = [key for key, is_done in zip(job.keys, job.is_done, strict=True) if is_done]
            is_whole = len(done) == len(job.keys)
            for key in done if self._failed else ():
                self._failed.pop(key, None)
            if job.is_load and not is_whole:
                # Else the engine would look them up again, find them, and try without end.
                loaded = set(done)
                missed = [key for key in job.keys if key not in loaded]
                self._lookup_manager.mark_miss(missed)
                self._note_failed(missed)
            results.append(
                JobResult(
                    job_id=job_id,
                    success=is_whole,
                    successful_keys=tuple(done) if job.is_load and done and not is_whole else None,
                    transfer_time=transfer_time_s,
                    transfer_bytes=len(done) * self._block_size,
                )
            )
        return results

    def has_failed(self, key: bytes) -> bool:
        """Whether the last load of a block has failed and it was not stored since. Pure."""
        return key in self._failed

    @property
    def block_bytes(self) -> int:
        """See the class."""
        return int(self._num_file_bytes - FOOTER_BYTES)

    def path_of(self, key: bytes) -> str:
        """The file of a block, which may not be there. Pure."""
        return str(self._path_of(key))

    def has_file(self, key: bytes) -> bool:
        """Whether a block's file has the right size and age. Reads its status."""
        return self._is_current(self._path_of(key))

    def read_into(self, key: bytes, block: memoryview) -> bool:
        """Read a block, and whether it is whole; removes a bad file. Thread-safe."""
        return self._load_block(self._path_of(key), block) is None

    def on_request_finished(self, req_context: Any) -> None:
        """Count all blocks of the request's path as used, resident or not."""
        super().on_request_finished(req_context)
        paths = self._paths_of(getattr(req_context, "_offload_key_positions", ()))
        self._collector.mark_used(paths)

    def drain_jobs(self) -> None:
        """Wait for jobs in flight, and load no block any more that was written before.

        vLLM calls this when it resets its caches, for example after new weights were loaded into a
        running engine. The files may then hold another model's KV, so a new identity starts; the
        next start of the engine finds the old one again.
        """
        super().drain_jobs()
        self._failed.clear()
        root = self._directory.directory_of(self._identity, epoch=secrets.token_hex(8))
        try:
            self._directory.make_directory(root, self._identity)
        except OSError as error:  # stores will fail as well, and are counted then
            self._log_once("error", _NOT_WRITTEN, error)
        self.file_mapper = _file_mapper(str(root), self._offloading_spec)

    def get_stats(self) -> Any:
        """Counts since the last call; see vLLM."""
        with self._counts_lock:
            counts, self._counts = self._counts, Counter()
        stats = OffloadingConnectorStats()
        record(stats, counts, self._collector.take_collected(), self._collector.num_bytes)
        return stats

    def shutdown(self) -> None:
        """End all threads; see vLLM."""
        super().shutdown()
        self._collector.close()
        self._bytes.release()  # else the host tier's memory cannot be released

    # In vLLM's reading and writing threads.

    def _store(self, job_id: int, job: _Job, chunk_ids: Sequence[int]) -> None:
        try:
            for i, (key, chunk_id) in enumerate(zip(job.keys, chunk_ids, strict=True)):
                with self._chunk(chunk_id) as block:
                    reason = self._store_block(self._path_of(key), block)
                if reason is not None:
                    self._count("skipped", reason, len(job.keys) - i)
                    return
                job.is_done[i] = True
        finally:
            if isinstance(self._slow_disk, SlowDisk):
                self._slow_disk.store_ended(job_id)

    def _store_block(self, path: Path, block: memoryview) -> str | None:
        """Write one block unless it is stored already; returns the reason if it failed."""
        if self._is_stored(path):
            return None
        if not self._collector.reserve(str(path), self._num_file_bytes):
            return "quota"
        settle = self._collector.release
        try:
            location = self._directory.location_of(path)
            write_block(path, location, block, is_direct=self._use_o_direct)
            settle = self._collector.written
        except OSError as error:
            reason = "disk_full" if error.errno in _FULL else "error"
            self._log_once(reason, _NOT_WRITTEN, error)
            return reason
        finally:
            settle(str(path))
        return None

    def _is_stored(self, path: Path) -> bool:
        """Whether a file of the right size and age is there; counts it as used."""
        try:
            if not self._is_current(path):
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def _is_current(self, path: Path) -> bool:
        try:
            status = path.stat()
        except OSError:
            return False
        return status.st_size == self._num_file_bytes and status.st_mtime >= self._not_before_s()

    def _load(self, job: _Job, chunk_ids: Sequence[int], first: int, stride: int) -> None:
        for i in range(first, len(job.keys), stride):
            with self._chunk(chunk_ids[i]) as block:
                reason = self._load_block(self._path_of(job.keys[i]), block)
            if reason is not None:
                self._count("refused", reason, 1)
                return
            job.is_done[i] = True

    def _load_block(self, path: Path, block: memoryview) -> str | None:
        """Read one block; returns the reason if it failed. Removes a bad or expired file."""
        try:
            state = read_block(
                path,
                self._directory.location_of(path),
                block,
                not_before_s=self._not_before_s(),
                is_direct=self._use_o_direct,
            )
            if state is BlockState.WHOLE:
                return None
            if state is not BlockState.MISSING:
                path.unlink(missing_ok=True)
            if state not in (BlockState.MISSING, BlockState.EXPIRED):
                self._log_once(state, "the pool's block %s is %s and was removed", path, state)
        except OSError as error:
            self._log_once("unreadable", _NOT_READ, error)
            return "unreadable"
        return state.value

    # Helpers.

    def _note_failed(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._failed[bytes(key)] = None
        while len(self._failed) > _MAX_FAILED:
            del self._failed[next(iter(self._failed))]

    def _not_before_s(self) -> float:
        return 0.0 if self._ttl_s is None else _wall_clock_s() - self._ttl_s

    def _started_collector(self, pool_bytes: int | None) -> GarbageCollector:
        return GarbageCollector(
            self._directory,
            max_bytes=pool_bytes,
            ttl_s=self._ttl_s,
            clock=_wall_clock_s,
            before_evicted=self._before_evicted,
        )

    def _before_evicted(self, path: str) -> None:
        if self.before_removed is not None:
            self.before_removed(path)

    def _chunk(self, chunk_id: int) -> memoryview:
        start = int(chunk_id) * self._block_size
        return self._bytes[start : start + self._block_size]

    def _path_of(self, key: bytes) -> Path:
        return Path(self.file_mapper.get_file_name(key))

    def _paths_of(self, keys: Iterable[bytes]) -> Iterator[Path]:
        return map(self._path_of, keys)

    def _count(self, what: str, reason: str, num_blocks: int) -> None:
        with self._counts_lock:
            self._counts[what, reason] += num_blocks

    def _log_once(self, kind: str, text: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            _logger.warning(text, *values)


def _file_mapper(root: str, spec: Any) -> Any:
    """Names files as vLLM's own tier does."""
    return FileMapper.from_offloading_spec(
        root_dir=root,
        offloading_spec=spec,
        blocks_per_file=spec.blocks_per_chunk,
        parallel_agnostic=True,
    )


def _wall_clock_s() -> float:
    return time.time_ns() / 1e9
