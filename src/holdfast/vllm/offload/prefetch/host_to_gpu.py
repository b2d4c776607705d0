"""Prefetches from the host tier into the KV cache.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.prefetch.outcomes import Prefetch, PrefetchOutcomes
from holdfast.vllm.offload.prefetch.placeholder_requests import PlaceholderRequests

__all__ = ["HostToGpu"]

_MIN_BLOCKS_A_LOAD: Final = 16
_STEPS_A_LOAD: Final = 2


class HostToGpu:
    """Loads one path at a time, in pieces that take about two engine steps.

    So a request's own load waits for no more than one piece, and the beginning of a path is
    resident when a turn needs it before the whole is.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
        tier: The host tier.
        num_resident: Leading prefix hashes of a path that are in the KV cache (count).
        counts: Receives the outcomes.
    """

    def __init__(
        self,
        scheduler: Any,
        tier: HostTier,
        num_resident: Callable[[Sequence[bytes]], int],
        counts: Counter[str],
    ) -> None:
        self._placeholders = PlaceholderRequests(scheduler)
        self._tier = tier
        self._num_resident = num_resident
        self._outcomes = PrefetchOutcomes(counts)
        self._current: Prefetch | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a load is in flight."""
        return self._current is not None

    def step(self) -> None:
        """End a load that is over. Mutates the scheduler."""
        if self._current is None:
            return
        self._placeholders.end_loaded()
        if not len(self._placeholders):
            prefetch, self._current = self._current, None
            if self._num_resident(prefetch.hashes) >= len(prefetch.hashes):
                self._outcomes.ended(prefetch, len(prefetch.hashes))

    def start(
        self, paths: Iterable[Sequence[bytes]], free_blocks: Callable[[], int], step_s: float
    ) -> None:
        """Load the first piece of the first path that is stored and not resident.

        Before `schedule` only; mutates the scheduler.

        Args:
            paths: Prefix hashes of paths, in the order in which they will be needed.
            free_blocks: KV blocks that may be filled (count).
            step_s: Expected duration of an engine step (s).
        """
        for hashes in paths:
            num_resident = self._num_resident(hashes)
            if not self._tier.num_stored(hashes, num_resident):
                continue
            num_free = free_blocks()
            if num_free <= 0:
                self._outcomes.deferred(hashes)
                return
            depth = self._placeholders.start(hashes, min(num_free, self._blocks_a_load(step_s)))
            if not depth:
                self._outcomes.counts["refused"] += 1
                continue
            prefetch = self._outcomes.open_for(hashes)
            if prefetch is None:
                prefetch = Prefetch(hashes, self._is_resident, False, num_resident, 0)
                self._outcomes.started(prefetch)
            prefetch.num_blocks += depth - num_resident
            prefetch.is_in_flight = True
            self._current = prefetch
            return

    def is_loading(self, hashes: Sequence[bytes]) -> bool:
        """Whether the load in flight brings missing blocks of a path. Pure."""
        if self._current is None:
            return False
        loaded = self._current.hashes
        depth = self._num_resident(loaded)
        return depth < min(len(hashes), len(loaded)) and hashes[depth] == loaded[depth]

    def needed(self, hashes: Sequence[bytes], *, was_queued: bool) -> None:
        """Count the prefetches that a turn needs; see `PrefetchOutcomes`. Mutates."""
        self._outcomes.needed(hashes, was_queued=was_queued)

    @property
    def hold_blocks(self) -> bool:
        """Whether a load, aborted or not, has blocks that the worker may still write."""
        return self._placeholders.hold_blocks

    def halt(self) -> None:
        """Abort the load in flight. Mutates the scheduler."""
        self._placeholders.abort_all()
        prefetch, self._current = self._current, None
        if prefetch is not None:
            self._outcomes.ended(prefetch, self._num_resident(prefetch.hashes))

    def close(self) -> None:
        """Abort the load in flight and follow no prefetch any more. Mutates the scheduler."""
        self._placeholders.abort_all()
        self._current = None
        self._outcomes.clear()

    def _is_resident(self, block_hash: bytes) -> bool:
        return self._num_resident([block_hash]) == 1

    def _blocks_a_load(self, step_s: float) -> int:
        block_s = self._tier.copies.load_s(1)
        if not 0.0 < block_s < step_s:
            return _MIN_BLOCKS_A_LOAD
        return max(int(_STEPS_A_LOAD * step_s / block_s), _MIN_BLOCKS_A_LOAD)
