"""The way from the tiers below into host memory, ahead of requests.

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

__all__ = ["DiskToHost", "Wanted"]

_CHUNKS_A_READ: Final = 64
_RESERVE_SHARE: Final = 0.25
_MAX_DONE: Final = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chain that should be in host memory.

    Attributes:
        hashes: Its prefix hashes.
        waits: Whether a turn waits in the queue for it.
        is_sure: Whether chunks of sessions that are away give way to it, those worth least first;
            else only what nobody claims.
        is_moot: Asked before each piece, whether nobody needs the rest any more.
    """

    hashes: list[bytes]
    waits: bool = False
    is_sure: bool = True
    is_moot: Callable[[], bool] = lambda: False


class DiskToHost:
    """One chain at a time, in pieces, so that a read which a request waits for is never far behind.

    What turns in the queue wait for takes up to a quarter of the host tier: sessions in the engine
    keep their chunks, so more could leave no room for those that run.

    Args:
        manager: vLLM's `TieringOffloadingManager`.
        tier: The host tier.
        num_cached: How much of a chain the KV cache has (prefix hashes).
        counts: Receives the outcomes.
    """

    def __init__(
        self,
        manager: Any,
        tier: HostTier,
        num_cached: Callable[[list[bytes]], int],
        counts: Counter[str],
    ) -> None:
        self._manager = manager
        self._tier = tier
        self._num_cached = num_cached
        self._errands = PrefetchOutcomes(counts)
        self._current: tuple[Prefetch, TierRead, Wanted] | None = None
        self._num_begun = 0
        # By last hash, chains that nothing below has more of, and those of pauses that were brought
        # once: what did not stay then would not stay the next time.
        self._done: OrderedDict[bytes, None] = OrderedDict()

    @property
    def is_busy(self) -> bool:
        """Whether a chain is on its way."""
        return self._current is not None

    def step(self) -> None:
        """Take in what has arrived and ask for the next piece. Mutates the manager."""
        if self._current is None:
            return
        errand, promotion, want = self._current
        if want.is_moot():
            self._end(errand, promotion, want)
            return
        with nullcontext() if want.is_sure else self._tier.sparing_claimed():
            promotion.advance(_CHUNKS_A_READ)
        if promotion.has_found:
            self._errands.sent(errand)
        if promotion.is_over:
            self._end(errand, promotion, want)

    def begin(self, wanted: Iterable[Wanted]) -> None:
        """Send for the first chain that is not in host memory, in order. Mutates the manager."""
        tier = self._tier
        for want in wanted:
            hashes = want.hashes
            if not hashes or hashes[-1] in self._done:
                continue
            if not want.is_sure and not tier.num_unclaimed:
                return
            num_there = self._num_cached(hashes)
            num_there += tier.num_stored(hashes, num_there)
            keys = tier.keys(hashes)[num_there // tier.stride :]
            if not keys:
                continue
            if want.waits and self._errands.num_blocks + len(keys) > _RESERVE_SHARE * tier.size:
                self._errands.deferred(hashes)
                return
            self._num_begun += 1
            promotion = TierRead(self._manager, self._num_begun, keys)
            errand = Prefetch(hashes, tier.holds, want.waits, num_there, len(keys))
            self._current = errand, promotion, want
            self.step()
            if self._current is not None:
                return

    def _end(self, errand: Prefetch, promotion: TierRead, want: Wanted) -> None:
        promotion.close()
        self._current = None
        self._errands.arrived(errand, errand.depth + promotion.num_done * self._tier.stride)
        if promotion.lacked_room:
            self._errands.deferred(errand.hashes)
        is_exhausted = promotion.is_over and not promotion.lacked_room
        if (is_exhausted and errand.depth < len(errand.hashes)) or not want.is_sure:
            self._done[errand.hashes[-1]] = None
            if len(self._done) > _MAX_DONE:
                self._done.popitem(last=False)

    def needed(self, hashes: Sequence[bytes], *, waited: bool) -> None:
        """See `PrefetchOutcomes`."""
        self._errands.needed(hashes, waited=waited)

    def halt(self) -> None:
        """Give up what is on its way, and any thought of what was found before. Mutates."""
        if self._current is not None:
            self._end(*self._current)
        self._done.clear()

    def drain(self) -> None:
        """Give up what is on its way. Mutates the manager."""
        if self._current is not None:
            self._current[1].close()
        self._current = None
        self._errands.clear()
