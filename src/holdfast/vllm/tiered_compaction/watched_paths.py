"""Paused prefixes that a tier has whole, by the parts that it may drop.

Process: scheduler; any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from holdfast.vllm.compaction.compactor import CompactJob
from holdfast.vllm.compaction.paused_prefixes import PausedPrefix

__all__ = ["StoredPrefix", "WatchedPaths"]


@dataclass(frozen=True, slots=True)
class StoredPrefix:
    """A paused prefix in a tier.

    Attributes:
        prefix: The prefix.
        keys: vLLM's keys of its chunks, in order.
        job: How to compact it; its blocks are numbers of chunks in order.
    """

    prefix: PausedPrefix
    keys: Sequence[bytes]
    job: CompactJob


class WatchedPaths:
    """Finds the prefixes that need a part which a tier drops. Thread-safe.

    Args:
        max_parts: Parts that are watched at most, those of the newest prefixes (count).
    """

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self._num_parts = 0
        self._lock = threading.Lock()
        self._stored: OrderedDict[bytes, tuple[StoredPrefix, Sequence[Hashable]]] = OrderedDict()
        self._needed_by: dict[Hashable, set[bytes]] = {}

    def __len__(self) -> int:
        """Prefixes that are watched (count)."""
        return len(self._stored)

    def add(self, stored: StoredPrefix, parts: Sequence[Hashable]) -> list[StoredPrefix]:
        """Watch a prefix. Mutates.

        Returns:
            Those that are not watched any more, as there are too many; the oldest ones.
        """
        last = stored.prefix.hashes[-1]
        with self._lock:
            dropped = self._removed([last])
            self._stored[last] = stored, parts
            self._num_parts += len(parts)
            for part in parts:
                self._needed_by.setdefault(part, set()).add(last)
            while self._num_parts > self._max_parts:
                dropped += self._removed([next(iter(self._stored))])
        return dropped

    def take(self, hashes: Iterable[bytes]) -> list[StoredPrefix]:
        """Stop to watch prefixes that end with one of these hashes; returns them. Mutates."""
        with self._lock:
            return self._removed(hashes)

    def take_all(self) -> list[StoredPrefix]:
        """Stop to watch any prefix; returns them. Mutates."""
        with self._lock:
            return self._removed(list(self._stored))

    def take_needing(self, parts: Iterable[Hashable]) -> list[StoredPrefix]:
        """Stop to watch prefixes that need one of these parts; returns them. Mutates."""
        with self._lock:
            lost: dict[bytes, None] = {}
            for part in parts:
                lost.update(dict.fromkeys(sorted(self._needed_by.get(part, ()))))
            return self._removed(lost)

    def _removed(self, hashes: Iterable[bytes]) -> list[StoredPrefix]:
        removed = []
        for last in hashes:
            found = self._stored.pop(last, None)
            if found is None:
                continue
            stored, parts = found
            removed.append(stored)
            self._num_parts -= len(parts)
            for part in parts:
                needed_by = self._needed_by[part]
                needed_by.discard(last)
                if not needed_by:
                    del self._needed_by[part]
        return removed
