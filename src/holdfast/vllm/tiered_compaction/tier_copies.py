"""Compacts paused prefixes when the last tier drops a chunk of theirs.

The host tier's cache policy names the chunks that it evicts before they are overwritten, and the
pool's collector each file before it is removed. A prefix that leaves the host tier and is in the
pool is watched there; else it is compacted.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import logging
import mmap
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from vllm.v1.kv_offload.base import make_offload_key

from holdfast.vllm.compaction.compactor import CompactJob, Compactor
from holdfast.vllm.compaction.lower_copies import Ended
from holdfast.vllm.compaction.page_layout import StoredPage, StoredPages
from holdfast.vllm.compaction.paused_prefixes import PausedPrefix
from holdfast.vllm.offload.disk_tier import DiskTier
from holdfast.vllm.offload.host_policy import HostPolicy
from holdfast.vllm.tiered_compaction.watched_paths import StoredPrefix, WatchedPaths

__all__ = ["TierCopies"]

_GROUP: Final = 0
_MAX_PARTS: Final = 1 << 19
_MAX_COPIED: Final = 4

_logger = logging.getLogger(__name__)


class TierCopies:
    """See `LowerCopies`.

    Args:
        policy: The host tier's cache policy.
        chunks: The host tier's memory, (num_chunks, chunk_bytes).
        disk: The tier below, or None.
        compactor: Compacts what is read; see `set_pages`.
        guard: Runs decisions; see `CompactionDelegate.guard`.

    Attributes:
        num_watched: Prefixes watched in the host tier and in the pool (counts).
    """

    def __init__(
        self,
        policy: HostPolicy,
        chunks: Callable[[], memoryview],
        disk: DiskTier | None,
        compactor: Compactor,
        guard: Callable[[Callable[[], None]], None],
    ) -> None:
        self._policy = policy
        self._chunks = chunks
        self._disk = disk
        self._compactor = compactor
        self._guard = guard
        self._pages: Sequence[StoredPage] = ()
        self._has_logged = False
        self._in_host = WatchedPaths(_MAX_PARTS)
        self._in_pool = WatchedPaths(_MAX_PARTS)
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdfast-tier-compaction")
        self._may_copy = threading.BoundedSemaphore(_MAX_COPIED)
        policy.before_evicted = lambda evicted: guard(lambda: self._evicted(evicted))
        if disk is not None:
            disk.before_removed = self._file_removed

    @property
    def num_watched(self) -> tuple[int, int]:
        """See the class."""
        return len(self._in_host), len(self._in_pool)

    def set_pages(self, pages: Sequence[StoredPage]) -> None:
        """Take where each layer is in a chunk, as the worker learned. Mutates."""
        self._pages = pages

    def close(self) -> None:
        """Wait until what was copied is compacted and written."""
        self._policy.before_evicted = None
        if self._disk is not None:
            self._disk.before_removed = None
        self._thread.shutdown()
        self._compactor.close()

    # See `LowerCopies`.

    def covers(self, hashes: Sequence[bytes]) -> bool:
        """See `LowerCopies`."""
        return all(self._is_in_host(key) or self._is_in_pool(key) for key in _keys(hashes))

    def keeps(self, hashes: Sequence[bytes]) -> bool:
        """See `LowerCopies`."""
        keys = _keys(hashes)
        return bool(self._pages) and (
            all(map(self._is_in_host, keys)) or all(map(self._is_in_pool, keys))
        )

    def watch(self, prefix: PausedPrefix, job: CompactJob) -> None:
        """See `LowerCopies`."""
        keys = _keys(prefix.hashes)
        stored = StoredPrefix(prefix, keys, replace(job, block_ids=list(range(len(keys)))))
        if all(map(self._is_in_host, keys)):
            self._end(self._in_host.add(stored, keys), "")
        else:
            self._watch_files(stored)

    def forget(self, hashes: Iterable[bytes]) -> None:
        """See `LowerCopies`."""
        hashes = list(hashes)
        self._end(self._in_host.take(hashes), "")
        self._end(self._in_pool.take(hashes), "")

    def clear(self) -> None:
        """See `LowerCopies`."""
        self._end(self._in_host.take_all(), "")
        self._end(self._in_pool.take_all(), "")

    def take_ended(self) -> list[Ended]:
        """See `LowerCopies`."""
        ended = []
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        return ended

    # What the tiers drop.

    def _evicted(self, evicted: Sequence[tuple[bytes, Any]]) -> None:
        """Compact the prefixes of chunks that are about to be overwritten."""
        last_read = {key: chunk.chunk_id for key, chunk in evicted}
        for stored in self._in_host.take_needing(last_read):
            if self._disk is not None and all(map(self._is_in_pool, stored.keys)):
                self._watch_files(stored)
            else:
                self._compact_from_host(stored, last_read)

    def _compact_from_host(self, stored: StoredPrefix, last_read: dict[bytes, int]) -> None:
        found = (last_read.get(key, self._chunk_of(key)) for key in stored.keys)
        ids = [chunk for chunk in found if chunk is not None]
        if len(ids) < len(stored.keys):
            self._end([stored], "incomplete")
            return
        if not self._may_copy.acquire(blocking=False):
            self._end([stored], "skipped")
            return
        # A copy: the tier overwrites its chunks while a thread compacts.
        copied = torch.from_numpy(np.asarray(self._chunks())[ids].view(np.uint8))
        self._thread.submit(self._compact_copied, stored, copied)

    def _compact_copied(self, stored: StoredPrefix, chunks: Tensor) -> None:
        try:
            self._compact(stored, lambda: chunks)
        finally:
            self._may_copy.release()

    def _file_removed(self, path: str) -> None:
        """Compact the prefixes that need a file; in the collector's thread."""
        for stored in self._in_pool.take_needing([path]):
            self._compact(stored, lambda stored=stored: self._read_files(stored))  # type: ignore[misc]

    def _read_files(self, stored: StoredPrefix) -> Tensor | None:
        assert self._disk is not None
        # Mapped memory begins at a page, as direct reads want it.
        memory = mmap.mmap(-1, len(stored.keys) * self._disk.block_bytes)
        chunks = np.frombuffer(memory, np.uint8).reshape(len(stored.keys), -1)
        is_whole = all(
            self._disk.read_into(key, chunk.data)
            for key, chunk in zip(stored.keys, chunks, strict=True)
        )
        return torch.from_numpy(chunks) if is_whole else None

    def _compact(self, stored: StoredPrefix, read: Callable[[], Tensor | None]) -> None:
        """Compact what is read; an error costs the compaction, and nothing of the tiers."""
        outcome = "incomplete"
        try:
            chunks = read()
            if chunks is not None:
                readers = [StoredPages(page, chunks) for page in self._pages]
                self._compactor.compact(stored.job, readers)
                outcome = "compacted"
        except Exception:
            if not self._has_logged:
                _logger.exception("sessions are not compacted as their tier drops them; counted")
            self._has_logged = True
        self._end([stored], outcome)

    # Helpers.

    def _end(self, stored: Iterable[StoredPrefix], outcome: str) -> None:
        for one in stored:
            self._ended.put(Ended(one.prefix, outcome))

    def _watch_files(self, stored: StoredPrefix) -> None:
        assert self._disk is not None
        paths = [self._disk.path_of(key) for key in stored.keys]
        self._end(self._in_pool.add(stored, paths), "")

    def _is_in_host(self, key: bytes) -> bool:
        return self._policy.get(key) is not None

    def _is_in_pool(self, key: bytes) -> bool:
        return self._disk is not None and self._disk.has_file(key)

    def _chunk_of(self, key: bytes) -> int | None:
        chunk = self._policy.get(key)
        return None if chunk is None or not chunk.is_ready else int(chunk.chunk_id)


def _keys(hashes: Sequence[bytes]) -> list[bytes]:
    """Keys that vLLM gives a path's chunks, each of one block. Pure."""
    return [make_offload_key(one, _GROUP) for one in hashes]
