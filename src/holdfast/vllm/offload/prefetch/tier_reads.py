"""Reads from lower tiers into the host tier for no request.

vLLM's manager starts to read a block when a lookup finds it below the host tier. So these reads are
lookups in the name of a request that does not exist.

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
    """Reads one path into the host tier, a few chunks at a time.

    So a read that a request waits for never queues after many of these.

    Args:
        manager: vLLM's `TieringOffloadingManager`.
        number: Tells reads apart.
        keys: vLLM's keys of the chunks, in the order of the path.

    Attributes:
        num_done: Leading chunks that are in the host tier (count).
        has_found: Whether a chunk was found below the host tier.
        is_over: Whether all chunks are in the host tier, or no tier has the next one.
        lacked_space: Whether it is over because the host tier had no space.
    """

    def __init__(self, manager: Any, number: int, keys: Sequence[bytes]) -> None:
        self.num_done = 0
        self.has_found = False
        self.is_over = not keys
        self.lacked_space = False
        self._manager = manager
        self._keys = keys
        self._context = ReqContext(req_id=f"{_PREFIX}{number}")
        with tier_lock(manager):
            manager.on_new_request(self._context)

    def advance(self, max_chunks: int) -> None:
        """Record which chunks have arrived and look up the next ones. Mutates the manager.

        Only before `schedule`: the manager hands the reads to the disk when a step is planned.

        Args:
            max_chunks: Chunks to look up (count).
        """
        with tier_lock(self._manager):
            self._look_up(self._keys[self.num_done : self.num_done + max_chunks])

    def _look_up(self, keys: Sequence[bytes]) -> None:
        is_in_order = True
        for key in keys:
            result = self._manager.lookup(key, self._context)
            if result is LookupResult.MISS:
                self.is_over = is_in_order
                self.lacked_space = is_in_order and self._is_below(key)
                return
            self.has_found = self.has_found or result is not LookupResult.RETRY
            is_in_order = is_in_order and result is LookupResult.HIT
            self.num_done += is_in_order
        self.is_over = self.num_done == len(self._keys)

    def _is_below(self, key: bytes) -> bool:
        tiers = self._manager.secondary_tiers
        return any(tier.lookup(key, self._context) is LookupResult.HIT for tier in tiers)

    def close(self) -> None:
        """Look up no more chunks; those in flight still arrive. Mutates the manager."""
        with tier_lock(self._manager):
            self._manager.on_request_finished(self._context)
