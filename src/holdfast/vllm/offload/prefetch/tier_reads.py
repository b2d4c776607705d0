"""Reads from the tiers below host memory that no request asked for.

vLLM's manager begins to read what a lookup finds below the host tier. So this looks blocks up, in
the name of nobody's request; once they are in host memory, loading them is a copy as any other.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.kv_offload.base import LookupResult, ReqContext

from holdfast.vllm.compat import tier_lock

__all__ = ["TierRead"]

_PREFIX = "holdfast-promotion-"


class TierRead:
    """One chain's blocks on their way into host memory; a few at a time.

    So a read that a request waits for is never far behind.

    Args:
        manager: vLLM's `TieringOffloadingManager`.
        number: Tells promotions apart.
        keys: vLLM's keys of the chunks, in the order of the chain.

    Attributes:
        num_done: Leading chunks that are in host memory (count).
        has_found: Whether something was found below.
        is_over: Whether no more will come: all are there, or the next one is nowhere.
        lacked_room: Whether it is over because the host tier had no room.
    """

    def __init__(self, manager: Any, number: int, keys: Sequence[bytes]) -> None:
        self.num_done = 0
        self.has_found = False
        self.is_over = not keys
        self.lacked_room = False
        self._manager = manager
        self._keys = keys
        self._context = ReqContext(req_id=f"{_PREFIX}{number}")
        with tier_lock(manager):
            manager.on_new_request(self._context)

    def advance(self, most_chunks: int) -> None:
        """See what has arrived, and ask for what follows, as many chunks at a time. Mutates.

        Only before `schedule`: the manager hands the reads to the disk when a step is planned.
        """
        with tier_lock(self._manager):
            self._advance(self._keys[self.num_done : self.num_done + most_chunks])

    def _advance(self, asked: Sequence[bytes]) -> None:
        is_in_order = True
        for key in asked:
            result = self._manager.lookup(key, self._context)
            if result is LookupResult.MISS:
                self.is_over = is_in_order
                self.lacked_room = is_in_order and self._is_below(key)
                return
            self.has_found = self.has_found or result is not LookupResult.RETRY
            is_in_order = is_in_order and result is LookupResult.HIT
            self.num_done += is_in_order
        self.is_over = self.num_done == len(self._keys)

    def _is_below(self, key: bytes) -> bool:
        tiers = self._manager.secondary_tiers
        return any(tier.lookup(key, self._context) is LookupResult.HIT for tier in tiers)

    def close(self) -> None:
        """Ask for nothing more; what was asked for still arrives. Mutates the manager."""
        with tier_lock(self._manager):
            self._manager.on_request_finished(self._context)
