"""Which chunks of the host tier go first: vLLM's cache policy with the scheduler's knowledge.

Named in `kv_connector_extra_config` as `eviction_policy` and `cache_policy_module_path`. Without a
scheduler that tells it about sessions it evicts what was stored first.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vllm.v1.kv_offload.cpu.policies.base import CachePolicy

from holdfast.cache.chunk_owners import ChunkOwners
from holdfast.vllm.versions import check_tiers, engine_version

__all__ = ["HostPolicy"]

_EVICTED_PER_ORDER = 512
_OWNERS_ASKED = 64


class HostPolicy(CachePolicy):  # type: ignore[misc]
    """Chunks go by the worth of the sessions that claim them, see `ChunkOwners`.

    The order of sessions is kept for a few hundred chunks.

    Attributes:
        claims: Who wants which chunks.
    """

    def __init__(self, cache_capacity: int) -> None:
        check_tiers(engine_version())
        super().__init__(cache_capacity)
        self._capacity = cache_capacity
        self.claims: ChunkOwners[Any, bytes] = ChunkOwners()
        self._chunks: dict[bytes, Any] = {}
        self._priority_of: Callable[[Any], Any] | None = None
        self._spares_claimed = False
        self._order: list[Any] = []
        self._num_until_order = 0

    def attach(self, priority_of: Callable[[Any], Any] | None) -> None:
        """Learn what owners of claims are worth.

        Args:
            priority_of: A key, less is given up first, or None while the owner must be left alone.
                Without it the owner goes first that made its first claim first.
        """
        self._priority_of = priority_of
        self._num_until_order = 0

    @contextmanager
    def sparing_claimed(self) -> Iterator[None]:
        """While it is open, chunks that somebody claims stay."""
        self._spares_claimed = True
        try:
            yield
        finally:
            self._spares_claimed = False

    def get(self, key: bytes) -> Any | None:
        """The chunk stored under `key`, or None."""
        return self._chunks.get(key)

    def insert(self, key: bytes, chunk: Any, req_context: Any = None) -> None:
        """Add a chunk that was just allocated; who stores it counts from vLLM 0.33 on."""
        self._chunks[key] = chunk
        self.claims.store(key)

    def remove(self, key: bytes) -> None:
        """Take out a chunk whose store has failed."""
        del self._chunks[key]
        self.claims.discard(key)

    def touch(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Recency says nothing here that claims do not."""

    def on_request_access(self, keys: Iterable[bytes], req_context: Any) -> None:
        """As `touch`; vLLM 0.33 tells of a request's first access to each chunk."""

    def on_request_finished(
        self,
        key_groups: Sequence[Sequence[bytes]],
        insertion_only_keys: set[bytes],
        reused_keys: set[bytes],
        req_context: Any,
    ) -> None:
        """Sessions' chains are claimed by the scheduler, which knows the whole of them."""

    def evict(self, n: int, protected: set[bytes]) -> list[tuple[bytes, Any]] | None:
        """Give up exactly `n` chunks, or none; see `CachePolicy`."""
        if self._spares_claimed:
            return self._victims(n, protected, ())
        self._keep_order(n)
        evicted = self._victims(n, protected, self._order)
        if evicted is None:
            self._order = self._ranked()
            evicted = self._victims(n, protected, self._order)
        return evicted

    def has_room(self, num_chunks: int, priority: Any) -> bool:
        """Whether so many chunks find room without any being given up that is worth more.

        Args:
            num_chunks: Chunks to store (count).
            priority: What they are worth, as `attach` says of owners. Asks the cheapest few dozen.
        """
        priority_of = self._priority_of
        num_missing = num_chunks + len(self.claims) - self._capacity - self.claims.num_unclaimed
        if num_missing <= 0 or priority_of is None:
            return True
        self._keep_order(num_missing)
        for owner in self._order[:_OWNERS_ASKED]:
            other = priority_of(owner)
            if other is not None and other <= priority:
                num_missing -= self.claims.num_claimed(owner)
                if num_missing <= 0:
                    return True
        return False

    def clear(self) -> None:
        """Forget every chunk and every claim."""
        self._chunks.clear()
        self.claims.clear()
        self._order, self._num_until_order = [], 0

    def _keep_order(self, num_chunks: int) -> None:
        """Rank owners anew when many chunks were asked for since that was done. Mutates."""
        if num_chunks > self._num_until_order:
            self._order = self._ranked()
            self._num_until_order = _EVICTED_PER_ORDER
        self._num_until_order -= num_chunks

    def _victims(
        self, n: int, protected: set[bytes], owners: Sequence[Any]
    ) -> list[tuple[bytes, Any]] | None:
        chunks = self._chunks

        def may_go(key: bytes) -> bool:
            return key not in protected and chunks[key].ref_cnt == 0

        priority_of = self._priority_of
        if priority_of is not None:
            owners = [owner for owner in owners if priority_of(owner) is not None]
        keys = self.claims.victims(n, owners, may_go)
        return None if keys is None else [(key, chunks.pop(key)) for key in keys]

    def _ranked(self) -> list[Any]:
        priority_of = self._priority_of
        if priority_of is None:
            return list(self.claims.owners())
        asked = ((priority_of(owner), owner) for owner in self.claims.owners())
        ranked = [(priority, owner) for priority, owner in asked if priority is not None]
        ranked.sort(key=lambda pair: pair[0])
        return [owner for _, owner in ranked]
