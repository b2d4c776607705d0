"""Keeping a pool within its bounds: what is left over, too old or too much is removed.

Every look lists the pool anew, as other engines change it too; what vanishes meanwhile counts as
removed. Blocks go by when they were last used, the longest ago first.
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

__all__ = ["ABANDONED_AFTER_S", "Bounds", "Tidied", "tidy"]

ABANDONED_AFTER_S: Final = 60.0
"""A file that is still being written after this long without a write is a killed engine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a pool may be; None sets no bound.

    Attributes:
        max_bytes: More than this, and blocks are removed ...
        goal_bytes: ... until no more than this is left; `max_bytes` when None.
        ttl_s: Blocks not used for longer are removed (s).
    """

    max_bytes: float | None = None
    goal_bytes: float | None = None
    ttl_s: float | None = None


@dataclass(slots=True)
class Tidied:
    """What one look found and did.

    Attributes:
        num_files: Blocks left.
        num_bytes: Bytes left, those of unfinished files included.
        num_evicted: Blocks removed for room.
        num_expired: Blocks removed for their age.
        num_abandoned: Unfinished files removed.
        removed_bytes: Bytes removed in all.
    """

    num_files: int = 0
    num_bytes: int = 0
    num_evicted: int = 0
    num_expired: int = 0
    num_abandoned: int = 0
    removed_bytes: int = 0

    def add(self, later: Tidied) -> None:
        """Add what a later look removed; what is left is what it left. Mutates."""
        self.num_files, self.num_bytes = later.num_files, later.num_bytes
        self.num_evicted += later.num_evicted
        self.num_expired += later.num_expired
        self.num_abandoned += later.num_abandoned
        self.removed_bytes += later.removed_bytes


def tidy(list_files: Callable[[], Iterable[StoredFile]], bounds: Bounds, now_s: float) -> Tidied:
    """Remove what is abandoned, expired, and then what is too much.

    Args:
        list_files: Lists the files; called again when there are too many.
        bounds: What may stay.
        now_s: The present (s since the epoch), on the clock of the files.

    Raises:
        OSError: A file is there but cannot be listed or removed.
    """
    tidied = Tidied()
    used_s, num_bytes = array("d"), array("q")
    for file in list_files():
        if file.is_temporary:
            if now_s - file.used_s > ABANDONED_AFTER_S:
                _remove(file, tidied)
                tidied.num_abandoned += 1
            else:
                tidied.num_bytes += file.num_bytes
        elif bounds.ttl_s is not None and now_s - file.used_s > bounds.ttl_s:
            _remove(file, tidied)
            tidied.num_expired += 1
        else:
            used_s.append(file.used_s)
            num_bytes.append(file.num_bytes)
            tidied.num_bytes += file.num_bytes
    tidied.num_files = len(used_s)
    if used_s and bounds.max_bytes is not None and tidied.num_bytes > bounds.max_bytes:
        goal = bounds.max_bytes if bounds.goal_bytes is None else bounds.goal_bytes
        for file in _oldest(list_files(), *_cutoff(used_s, num_bytes, tidied.num_bytes - goal)):
            _remove(file, tidied)
            tidied.num_evicted += 1
            tidied.num_files -= 1
            tidied.num_bytes -= file.num_bytes
    return tidied


def _cutoff(used_s: array[float], num_bytes: array[int], num_excess: float) -> tuple[float, float]:
    """When the last of the longest unused files that make up `num_excess` bytes was used.

    Returns:
        The moment, and the bytes that files used just then must give.
    """
    used = np.frombuffer(used_s, dtype=np.float64)
    sizes = np.frombuffer(num_bytes, dtype=np.int64)
    order = np.argsort(used)
    last = min(int(np.searchsorted(np.cumsum(sizes[order]), num_excess)), len(order) - 1)
    cutoff_s = float(used[order[last]])
    return cutoff_s, num_excess - float(sizes[used < cutoff_s].sum())


def _oldest(
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


def _remove(file: StoredFile, tidied: Tidied) -> None:
    path = Path(file.path)
    path.unlink(missing_ok=True)
    tidied.removed_bytes += file.num_bytes
    with contextlib.suppress(OSError):  # most directories hold one block; the rest refuse
        path.parent.rmdir()
