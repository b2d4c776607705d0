"""Removes a pool's abandoned, expired and excess files.

Each collection lists the pool anew, as other engines change it too; a file that vanishes meanwhile
counts as removed.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from holdfast.pool.directory import StoredFile

__all__ = ["ABANDONED_AFTER_S", "Bounds", "Collected", "collect_garbage"]

ABANDONED_AFTER_S: Final = 60.0
"""An unfinished file without a write for this long is abandoned: its engine was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of a pool; None sets no limit.

    Attributes:
        max_bytes: Above this size blocks are evicted ...
        goal_bytes: ... until the pool has this size; `max_bytes` when None.
        ttl_s: Blocks unused for longer are removed (s).
    """

    max_bytes: float | None = None
    goal_bytes: float | None = None
    ttl_s: float | None = None


@dataclass(slots=True)
class Collected:
    """Removals of one collection or several, and the size of the pool after the last.

    Attributes:
        num_files: Blocks left (count).
        num_bytes: Bytes of these.
        num_evicted: Blocks removed because of the pool's size (count).
        num_expired: Blocks removed because of their age (count).
        num_abandoned: Unfinished files removed (count).
        removed_bytes: Bytes removed in all.
    """

    num_files: int = 0
    num_bytes: int = 0
    num_evicted: int = 0
    num_expired: int = 0
    num_abandoned: int = 0
    removed_bytes: int = 0

    def add(self, later: Collected) -> None:
        """Add the removals of a later collection, and take over its sizes. Mutates."""
        self.num_files, self.num_bytes = later.num_files, later.num_bytes
        self.num_evicted += later.num_evicted
        self.num_expired += later.num_expired
        self.num_abandoned += later.num_abandoned
        self.removed_bytes += later.removed_bytes


def collect_garbage(
    list_files: Callable[[], Iterable[StoredFile]],
    bounds: Bounds,
    now_s: float,
    before_evicted: Callable[[str], None] | None = None,
) -> Collected:
    """Remove abandoned files, expired blocks, and then blocks above the size limit.

    Args:
        list_files: Lists the files; called again when the pool is too large.
        bounds: Limits of the pool.
        now_s: Time now (s since the epoch), on the clock of the files.
        before_evicted: Called with each file before it is removed for space.

    Raises:
        OSError: A file exists but cannot be listed or removed.
    """
    collected = Collected()
    used_s, num_bytes = array("d"), array("q")
    for file in list_files():
        if file.is_temporary:
            if now_s - file.used_s > ABANDONED_AFTER_S:
                _remove(file, collected)
                collected.num_abandoned += 1
        elif bounds.ttl_s is not None and now_s - file.used_s > bounds.ttl_s:
            _remove(file, collected)
            collected.num_expired += 1
        else:
            used_s.append(file.used_s)
            num_bytes.append(file.num_bytes)
            collected.num_bytes += file.num_bytes
    collected.num_files = len(used_s)
    if used_s and bounds.max_bytes is not None and collected.num_bytes > bounds.max_bytes:
        goal = bounds.max_bytes if bounds.goal_bytes is None else bounds.goal_bytes
        cutoff = _cutoff(used_s, num_bytes, collected.num_bytes - goal)
        for file in _least_recently_used(list_files(), *cutoff):
            if before_evicted is not None:
                before_evicted(file.path)
            _remove(file, collected)
            collected.num_evicted += 1
            collected.num_files -= 1
            collected.num_bytes -= file.num_bytes
    return collected


def _cutoff(used_s: array[float], num_bytes: array[int], num_excess: float) -> tuple[float, float]:
    """Find the least recently used files that make up `num_excess` bytes.

    Returns:
        When the last of them was used, and the bytes to remove of files used just then.
    """
    used = np.frombuffer(used_s, dtype=np.float64)
    sizes = np.frombuffer(num_bytes, dtype=np.int64)
    order = np.argsort(used)
    last = min(int(np.searchsorted(np.cumsum(sizes[order]), num_excess)), len(order) - 1)
    cutoff_s = float(used[order[last]])
    return cutoff_s, num_excess - float(sizes[used < cutoff_s].sum())


def _least_recently_used(
    files: Iterable[StoredFile], cutoff_s: float, num_at_cutoff: float
) -> Iterator[StoredFile]:
    for file in files:
        if file.is_temporary or file.used_s > cutoff_s:
            continue
        if file.used_s == cutoff_s:
            if num_at_cutoff <= 0:
                continue
            num_at_cutoff -= file.num_bytes
        yield file


def _remove(file: StoredFile, collected: Collected) -> None:
    path = Path(file.path)
    path.unlink(missing_ok=True)
    collected.removed_bytes += file.num_bytes
    with contextlib.suppress(OSError):  # most directories hold one block; others are not empty
        path.parent.rmdir()
