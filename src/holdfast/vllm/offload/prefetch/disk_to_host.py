"""Prefetches from lower tiers into the host tier.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.prefetch.outcomes import Prefetch, PrefetchOutcomes
from holdfast.vllm.offload.prefetch.tier_reads import TierRead

__all__ = ["DiskToHost", "WantedPath"]

_CHUNKS_A_READ: Final = 64
_QUEUED_SHARE: Final = 0.25
_MAX_DONE: Final = 1024


@dataclass(frozen=True, slots=True)
class WantedPath:
    """A path that should be in the host tier.

    Attributes:
        hashes: Its prefix hashes.
        is_for_queued: Whether a queued turn needs it.
        may_evict_owned: Whether it may evict chunks of idle sessions, lowest retention priority
            first; else only chunks without an owner.
        is_obsolete: Whether no turn needs the rest any more; asked before each piece.
    """

    hashes: list[bytes]
    is_for_queued: bool = False
    may_evict_owned: bool = True
    is_obsolete: Callable[[], bool] = lambda: False


class DiskToHost:
    """Reads one path at a time, in pieces, so that a request's own read waits briefly.

    Paths of queued turns take at most a quarter of the host tier: sessions in the engine keep their
    chunks, so more could leave no space for those that run.

    Args:
        manager: vLLM's `TieringOffloadingManager`.
        tier: The host tier.
        num_resident: Leading prefix hashes of a path that are in the KV cache (count).
        counts: Receives the outcomes.
    """

    def __init__(
        self,
        manager: Any,
        tier: HostTier,
        num_resident: Callable[[list[bytes]], int],
        counts: Counter[str],
    ) -> None:
        self._manager = manager
        self._tier = tier
        self._num_resident = num_resident
        self._outcomes = PrefetchOutcomes(counts)
        self._current: tuple[Prefetch, TierRead, WantedPath] | None = None
        self._num_started = 0
        # Last hashes of paths not to read again: no lower tier stores more of them, or they were
        # read for a paused session once and would be evicted again.
        self._done: OrderedDict[bytes, None] = OrderedDict()

    @property
    def is_busy(self) -> bool:
        """Whether a read is in flight."""
        return self._current is not None

    def step(self) -> None:
        """Record which chunks have arrived and read the next piece. Mutates the manager."""
        if self._current is None:
            return
        prefetch, read, wanted = self._current
        if wanted.is_obsolete():
            self._end(prefetch, read, wanted)
            return
        with nullcontext() if wanted.may_evict_owned else self._tier.protect_owned():
            read.advance(_CHUNKS_A_READ)
        if read.has_found:
            self._outcomes.started(prefetch)
        if read.is_over:
            self._end(prefetch, read, wanted)

    def start(self, paths: Iterable[WantedPath]) -> None:
        """Read the first path that is not in the host tier. Mutates the manager.

        Args:
            paths: Paths, in the order in which they will be needed.
        """
        tier = self._tier
        for wanted in paths:
            hashes = wanted.hashes
            if not hashes or hashes[-1] in self._done:
                continue
            if not wanted.may_evict_owned and not tier.num_unowned:
                return
            depth = self._num_resident(hashes)
            depth += tier.num_stored(hashes, depth)
            keys = tier.keys(hashes)[depth // tier.hashes_per_chunk :]
            if not keys:
                continue
            num_chunks = self._outcomes.num_blocks + len(keys)
            if wanted.is_for_queued and num_chunks > _QUEUED_SHARE * tier.num_chunks:
                self._outcomes.deferred(hashes)
                return
            self._num_started += 1
            read = TierRead(self._manager, self._num_started, keys)
            prefetch = Prefetch(hashes, tier.is_stored, wanted.is_for_queued, depth, len(keys))
            self._current = prefetch, read, wanted
            self.step()
            if self._current is not None:
                return

    def _end(self, prefetch: Prefetch, read: TierRead, wanted: WantedPath) -> None:
        read.close()
        self._current = None
        self._outcomes.ended(prefetch, prefetch.depth + read.num_done * self._tier.hashes_per_chunk)
        if read.lacked_space:
            self._outcomes.deferred(prefetch.hashes)
        is_exhausted = read.is_over and not read.lacked_space
        is_incomplete = is_exhausted and prefetch.depth < len(prefetch.hashes)
        if is_incomplete or not wanted.may_evict_owned:
            self._done[prefetch.hashes[-1]] = None
            if len(self._done) > _MAX_DONE:
                self._done.popitem(last=False)

    def needed(self, hashes: Sequence[bytes], *, was_queued: bool) -> None:
        """Count the prefetches that a turn needs; see `PrefetchOutcomes`. Mutates."""
        self._outcomes.needed(hashes, was_queued=was_queued)

    def halt(self) -> None:
        """End the read in flight and forget which paths not to read again. Mutates."""
        if self._current is not None:
            self._end(*self._current)
        self._done.clear()

    def close(self) -> None:
        """End the read in flight and follow no prefetch any more. Mutates the manager."""
        if self._current is not None:
            self._current[1].close()
        self._current = None
        self._outcomes.clear()
