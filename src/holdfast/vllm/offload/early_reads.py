"""The way from the tiers below into host memory, ahead of requests.

Process: scheduler. Checked on vLLM 0.32.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.vllm.offload.errands import Errand, Errands
from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.promotions import Promotion

__all__ = ["EarlyReads", "Wanted"]

_CHUNKS_A_READ: Final = 64
_RESERVE_SHARE: Final = 0.25
_MAX_FUTILE: Final = 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """A chain that should be in host memory.

    Attributes:
        hashes: Its prefix hashes.
        waits: Whether a turn waits in the queue for it.
        worth: Only chunks of sessions worth less give way; None asks for no more than that they are
            away.
    """

    hashes: list[bytes]
    waits: bool = False
    worth: Any = None


class EarlyReads:
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
        self._errands = Errands(counts)
        self._current: tuple[Errand, Promotion, Any] | None = None
        self._num_begun = 0
        # Chains that nothing below had more of, so that they are not asked for again and again.
        self._futile: OrderedDict[bytes, None] = OrderedDict()

    @property
    def is_busy(self) -> bool:
        """Whether a chain is on its way."""
        return self._current is not None

    def step(self) -> None:
        """Take in what has arrived and ask for the next piece. Mutates the manager."""
        if self._current is None:
            return
        errand, promotion, worth = self._current
        with self._tier.sparing(worth):
            promotion.advance(_CHUNKS_A_READ)
        if not promotion.is_over:
            return
        promotion.close()
        self._current = None
        self._errands.arrived(errand, errand.depth + promotion.num_done * self._tier.stride)
        if errand.depth < len(errand.hashes):
            self._futile[errand.hashes[-1]] = None
            if len(self._futile) > _MAX_FUTILE:
                self._futile.popitem(last=False)

    def begin(self, wanted: Iterable[Wanted]) -> None:
        """Send for the first chain that is not in host memory, in order. Mutates the manager."""
        tier = self._tier
        for want in wanted:
            hashes = want.hashes
            if not hashes or hashes[-1] in self._futile:
                continue
            num_there = self._num_cached(hashes)
            num_there += tier.num_held(hashes, num_there)
            keys = tier.keys(hashes)[num_there // tier.stride :]
            if not keys:
                continue
            if want.waits and self._errands.num_blocks + len(keys) > _RESERVE_SHARE * tier.size:
                self._errands.counts["deferred"] += 1
                return
            self._num_begun += 1
            promotion = Promotion(self._manager, self._num_begun, keys)
            errand = Errand(hashes, tier.holds, want.waits, num_there, len(keys))
            self._errands.sent(errand)
            self._current = errand, promotion, want.worth
            return

    def needed(self, hashes: Sequence[bytes], *, waited: bool) -> None:
        """See `Errands`."""
        self._errands.needed(hashes, waited=waited)

    def drain(self) -> None:
        """Give up what is on its way. Mutates the manager."""
        if self._current is not None:
            self._current[1].close()
        self._current = None
        self._errands.clear()
