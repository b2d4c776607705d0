"""A thread that keeps a pool within its bounds while an engine uses it.

Every engine on a pool has one; they agree on what goes first, so two of them remove the same
files once. What the engine asks is answered from an estimate: the last look, and what this engine
has stored since. Looks go slowly, so that the threads of the engine are not held up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from holdfast.pool.directory import PoolDirectory, StoredFile
from holdfast.pool.tidying import Bounds, Tidied, tidy

__all__ = ["PoolKeeper"]

_START_RATIO: Final = 0.95
_GOAL_RATIO: Final = 0.85
_LONGEST_REST_S: Final = 60.0
_REST_PER_LOOK: Final = 20.0
_LOOKS_PER_TTL: Final = 4.0
_RENEWAL_INTERVAL_S: Final = 1.0
_RENEWED_AFTER_S: Final = 300.0
_MAX_RENEWALS: Final = 1024
_FILES_PER_PAUSE: Final = 64
_PAUSE_S: Final = 0.001

_logger = logging.getLogger(__name__)


class PoolKeeper:
    """Keeps one pool tidy for one engine. The methods are quick and may be called by any thread.

    Args:
        pool: The pool.
        max_bytes: Its bound, blocks of all engines together; None sets none.
        ttl_s: Blocks unused for longer go (s); None keeps them.
        clock: Seconds since the epoch, as the files' times are.
    """

    def __init__(
        self,
        pool: PoolDirectory,
        *,
        max_bytes: float | None,
        ttl_s: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._bounds = Bounds(
            max_bytes=None if max_bytes is None else _START_RATIO * max_bytes,
            goal_bytes=None if max_bytes is None else _GOAL_RATIO * max_bytes,
            ttl_s=ttl_s,
        )
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._num_bytes = 0  # the estimate
        self._num_added = 0  # since the look under way began
        self._removed = Tidied()
        self._renewals: deque[Iterable[Path]] = deque(maxlen=_MAX_RENEWALS)
        self._stop = threading.Event()
        self._is_look_wanted = True
        self._is_troubled = False
        self._thread = threading.Thread(target=self._run, name="holdfast-pool", daemon=True)
        self._thread.start()

    def has_room(self, num_bytes: int) -> bool:
        """Whether `num_bytes` more fit, as far as is known; where they do not, room is made."""
        if self._max_bytes is None:
            return True
        with self._lock:
            num_after = self._num_bytes + num_bytes
            self._is_look_wanted |= num_after > _START_RATIO * self._max_bytes
            return num_after <= self._max_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes that were stored; negative ones were removed."""
        with self._lock:
            self._num_bytes += num_bytes
            self._num_added += num_bytes

    def renew(self, paths: Iterable[Path]) -> None:
        """Count blocks as used now; taken from `paths` later, by the keeper's thread."""
        self._renewals.append(paths)

    def take_removed(self) -> Tidied:
        """What was removed since the last call, and what was left at the last look. Mutates."""
        with self._lock:
            taken, self._removed = self._removed, Tidied()
            return taken

    @property
    def num_bytes(self) -> int:
        """Bytes in the pool, as far as is known."""
        return self._num_bytes

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rest_until_s = 0.0
        while True:
            now_s = time.monotonic()
            if self._is_look_wanted or now_s >= rest_until_s:
                self._is_look_wanted = False
                self._guarded(self._look)
                look_s = time.monotonic() - now_s
                rest_until_s = now_s + max(self._rest_s(), _REST_PER_LOOK * look_s)
            self._guarded(self._renew_all)
            if self._stop.wait(_RENEWAL_INTERVAL_S):
                return

    def _rest_s(self) -> float:
        ttl_s = self._bounds.ttl_s
        return _LONGEST_REST_S if ttl_s is None else min(_LONGEST_REST_S, ttl_s / _LOOKS_PER_TTL)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except OSError as error:
            if not self._is_troubled:
                _logger.warning("the pool %s cannot be tidied: %s", self._pool.path, error)
            self._is_troubled = True

    def _look(self) -> None:
        with self._lock:
            self._num_added = 0
        tidied = tidy(lambda: self._paced(self._pool.files()), self._bounds, self._clock())
        if self._stop.is_set():
            return  # it was cut short
        with self._lock:
            self._num_bytes = tidied.num_bytes + self._num_added
            self._removed.add(tidied)

    def _paced(self, files: Iterable[StoredFile]) -> Iterator[StoredFile]:
        for number, file in enumerate(files, 1):
            if number % _FILES_PER_PAUSE == 0 and self._stop.wait(_PAUSE_S):
                return
            yield file

    def _renew_all(self) -> None:
        """Set the time of files that were not used for a while; most are from the last turns.

        Without this the beginnings of prompts, which stay in the engine's own cache and are never
        loaded, would be the first to go, and the rest of their chains useless.
        """
        while self._renewals and not self._stop.is_set():
            before_s = self._clock() - min(_RENEWED_AFTER_S, self._rest_s())
            for path in self._renewals.popleft():
                _renew(path, before_s)


def _renew(path: Path, before_s: float) -> None:
    try:
        if path.stat().st_mtime < before_s:
            os.utime(path)
    except FileNotFoundError:
        return
