"""The way from host memory into the KV cache, ahead of requests.

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

_LEAST_BLOCKS_A_COPY: Final = 16
_STEPS_A_COPY: Final = 2


class HostToGpu:
    """One copy at a time, of what the link carries in about two engine steps.

    So a request that must load something itself waits for no more than that, and a chain that is
    needed before it is whole has its beginning there.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
        tier: The host tier.
        num_cached: How much of a chain the KV cache has (prefix hashes).
        counts: Receives the outcomes.
    """

    def __init__(
        self,
        scheduler: Any,
        tier: HostTier,
        num_cached: Callable[[Sequence[bytes]], int],
        counts: Counter[str],
    ) -> None:
        self._ghosts = PlaceholderRequests(scheduler)
        self._tier = tier
        self._num_cached = num_cached
        self._errands = PrefetchOutcomes(counts)
        self._current: Prefetch | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a copy is under way."""
        return self._current is not None

    def step(self) -> None:
        """End a copy that is over. Mutates the scheduler."""
        if self._current is None:
            return
        self._ghosts.take_finished()
        if not len(self._ghosts):
            errand, self._current = self._current, None
            if self._num_cached(errand.hashes) >= len(errand.hashes):
                self._errands.arrived(errand, len(errand.hashes))

    def begin(
        self, chains: Iterable[Sequence[bytes]], spare_blocks: Callable[[], int], step_s: float
    ) -> None:
        """Send for the first piece of a chain that is in host memory and not cached.

        Before `schedule` only; mutates the scheduler.

        Args:
            chains: Prefix hashes of chains, those needed first foremost.
            spare_blocks: Blocks that may be taken (count).
            step_s: What an engine step takes (s).
        """
        for hashes in chains:
            num_cached = self._num_cached(hashes)
            if not self._tier.num_stored(hashes, num_cached):
                continue
            room = spare_blocks()
            if room <= 0:
                self._errands.deferred(hashes)
                return
            depth = self._ghosts.begin(hashes, min(room, self._blocks_a_copy(step_s)))
            if not depth:
                self._errands.counts["refused"] += 1
                continue
            errand = self._errands.on_way_to(hashes)
            if errand is None:
                errand = Prefetch(hashes, self._is_cached, False, num_cached, 0)
                self._errands.sent(errand)
            errand.num_blocks += depth - num_cached
            errand.is_under_way = True
            self._current = errand
            return

    def needed(self, hashes: Sequence[bytes], *, waited: bool) -> None:
        """See `PrefetchOutcomes`."""
        self._errands.needed(hashes, waited=waited)

    @property
    def hold_blocks(self) -> bool:
        """Whether a copy, given up or not, has blocks that the worker may still write."""
        return self._ghosts.hold_blocks

    def halt(self) -> None:
        """Give up what is under way. Mutates the scheduler."""
        self._ghosts.drain()
        errand, self._current = self._current, None
        if errand is not None:
            self._errands.arrived(errand, self._num_cached(errand.hashes))

    def drain(self) -> None:
        """Give up what is under way, for good. Mutates the scheduler."""
        self._ghosts.drain()
        self._current = None
        self._errands.clear()

    def _is_cached(self, block_hash: bytes) -> bool:
        return self._num_cached([block_hash]) == 1

    def _blocks_a_copy(self, step_s: float) -> int:
        block_s = self._tier.copies.load_s(1)
        if not 0.0 < block_s < step_s:
            return _LEAST_BLOCKS_A_COPY
        return max(int(_STEPS_A_COPY * step_s / block_s), _LEAST_BLOCKS_A_COPY)
