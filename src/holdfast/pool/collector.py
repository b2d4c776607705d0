"""A thread that keeps a pool within its bounds while an engine uses it.

Every engine has a collector. All of them evict in the same order, so two of them remove the same
files, once. The engine's queries are answered from an estimate: the size at the last collection and
what this engine has stored since, or is storing. Collections run slowly, to leave the engine's
threads the disk.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from holdfast.pool.directory import PoolDirectory, StoredFile
from holdfast.pool.garbage_collection import Bounds, Collected, collect_garbage

__all__ = ["GarbageCollector"]

_START_RATIO: Final = 0.95
_GOAL_RATIO: Final = 0.85
_MAX_INTERVAL_S: Final = 60.0
_INTERVAL_PER_DURATION: Final = 20.0
_COLLECTIONS_PER_TTL: Final = 4.0
_WAKE_INTERVAL_S: Final = 1.0
_TOUCHED_AFTER_S: Final = 300.0
_MAX_PENDING_USES: Final = 1024
_FILES_PER_SLEEP: Final = 64
_SLEEP_S: Final = 0.001

_logger = logging.getLogger(__name__)


class GarbageCollector:
    """Collects a pool's garbage for one engine. All methods are quick and thread-safe.

    Args:
        pool: The pool.
        max_bytes: Limit of its size, blocks of all engines together; None sets none.
        ttl_s: Blocks unused for longer are removed (s); None keeps them.
        clock: Returns seconds since the epoch, on the clock of the files.
        before_evicted: Called in the collector's thread with each file that it removes for space.
    """

    def __init__(
        self,
        pool: PoolDirectory,
        *,
        max_bytes: float | None,
        ttl_s: float | None,
        clock: Callable[[], float],
        before_evicted: Callable[[str], None] | None = None,
    ) -> None:
        self._pool = pool
        self._bounds = Bounds(
            max_bytes=None if max_bytes is None else _START_RATIO * max_bytes,
            goal_bytes=None if max_bytes is None else _GOAL_RATIO * max_bytes,
            ttl_s=ttl_s,
        )
        self._max_bytes = max_bytes
        self._clock = clock
        self._before_evicted = before_evicted
        self._lock = threading.Lock()
        self._num_bytes = 0  # the estimate
        self._unlisted: dict[str, int] = {}  # of it, files that no collection has counted
        self._being_written: set[str] = set()
        self._collected = Collected()
        self._pending_uses: deque[Iterable[Path]] = deque(maxlen=_MAX_PENDING_USES)
        self._stop = threading.Event()
        self._is_due = True
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="holdfast-pool", daemon=True)
        self._thread.start()

    def reserve(self, path: str, num_bytes: int) -> bool:
        """Whether a file fits, by the estimate; counts it if so. Mutates; may collect.

        Args:
            path: The file; `written` or `release` follows if it fits.
            num_bytes: Its size (bytes).
        """
        with self._lock:
            num_after = self._num_bytes + num_bytes - self._unlisted.get(path, 0)
            if self._max_bytes is not None:
                self._is_due |= num_after > _START_RATIO * self._max_bytes
                if num_after > self._max_bytes:
                    return False
            self._num_bytes = num_after
            self._unlisted[path] = num_bytes
            self._being_written.add(path)
            return True

    def written(self, path: str) -> None:
        """Take in that a reserved file is in the pool. Mutates."""
        with self._lock:
            self._being_written.discard(path)

    def release(self, path: str) -> None:
        """Take in that a reserved file could not be written. Mutates."""
        with self._lock:
            self._being_written.discard(path)
            self._num_bytes -= self._unlisted.pop(path, 0)

    def mark_used(self, paths: Iterable[Path]) -> None:
        """Count blocks as used now; the collector's thread iterates over `paths` later."""
        self._pending_uses.append(paths)

    def take_collected(self) -> Collected:
        """Return removals since the last call, and the last known size. Mutates."""
        with self._lock:
            taken, self._collected = self._collected, Collected()
            return taken

    @property
    def num_bytes(self) -> int:
        """Bytes in the pool, by the estimate."""
        return self._num_bytes

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        next_s = 0.0
        while True:
            now_s = time.monotonic()
            if self._is_due or now_s >= next_s:
                self._is_due = False
                self._guarded(self._collect)
                duration_s = time.monotonic() - now_s
                next_s = now_s + max(self._interval_s(), _INTERVAL_PER_DURATION * duration_s)
            self._guarded(self._touch_used)
            if self._stop.wait(_WAKE_INTERVAL_S):
                return

    def _interval_s(self) -> float:
        ttl_s = self._bounds.ttl_s
        return (
            _MAX_INTERVAL_S if ttl_s is None else min(_MAX_INTERVAL_S, ttl_s / _COLLECTIONS_PER_TTL)
        )

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except OSError as error:
            if not self._has_failed:
                _logger.warning(
                    "the pool %s cannot be cleaned up and may outgrow its limit: %s;"
                    " check the permissions of its files",
                    self._pool.path,
                    error,
                )
            self._has_failed = True

    def _collect(self) -> None:
        with self._lock:
            being_written = self._being_written
            self._unlisted = {p: n for p, n in self._unlisted.items() if p in being_written}
        # Its first listing counts the files, the second finds what to evict.
        first = self._counted(self._throttled(self._pool.files()))
        listings = itertools.chain([first], self._listings())
        collected = collect_garbage(
            lambda: next(listings), self._bounds, self._clock(), self._before_evicted
        )
        if self._stop.is_set():
            return  # the listing was cut short
        with self._lock:
            self._num_bytes = collected.num_bytes + sum(self._unlisted.values())
            self._collected.add(collected)

    def _listings(self) -> Iterator[Iterator[StoredFile]]:
        while True:
            yield self._throttled(self._pool.files())

    def _counted(self, files: Iterable[StoredFile]) -> Iterator[StoredFile]:
        """Yield files of which each is in the collection's size."""
        for file in files:
            if file.path in self._unlisted:
                with self._lock:
                    self._unlisted.pop(file.path, None)
            yield file

    def _throttled(self, files: Iterable[StoredFile]) -> Iterator[StoredFile]:
        for number, file in enumerate(files, 1):
            if number % _FILES_PER_SLEEP == 0 and self._stop.wait(_SLEEP_S):
                return
            yield file

    def _touch_used(self) -> None:
        """Set the time of used files, except those whose time is recent.

        Without this the first blocks of prompts, which stay in the KV cache and are never loaded,
        would be evicted first, and the blocks after them would be useless.
        """
        while self._pending_uses and not self._stop.is_set():
            before_s = self._clock() - min(_TOUCHED_AFTER_S, self._interval_s())
            for path in self._pending_uses.popleft():
                _touch(path, before_s)


def _touch(path: Path, before_s: float) -> None:
    try:
        if path.stat().st_mtime < before_s:
            os.utime(path)
    except FileNotFoundError:
        return
