"""vLLM's cache policy of the host tier, which evicts by retention priority.

Named in `kv_connector_extra_config` as `eviction_policy` and `cache_policy_module_path`. Without
Holdfast's scheduler it evicts the oldest chunks first.

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

_EVICTED_PER_RANKING = 512
_OWNERS_ASKED = 64


class HostPolicy(CachePolicy):  # type: ignore[misc]
    """Evicts chunks by the retention priority of their sessions; see `ChunkOwners`.

    A ranking of the sessions serves a few hundred evictions.

    Attributes:
        chunk_owners: Which sessions want which chunks.
        before_evicted: Called with keys and chunks whose memory the caller is about to reuse.
    """

    before_evicted: Callable[[Sequence[tuple[bytes, Any]]], None] | None = None

    def __init__(self, cache_capacity: int) -> None:
        check_tiers(engine_version())
        super().__init__(cache_capacity)
        self._capacity = cache_capacity
        self.chunk_owners: ChunkOwners[Any, bytes] = ChunkOwners()
        self._chunks: dict[bytes, Any] = {}
        self._priority_of: Callable[[Any], Any] | None = None
        self._protects_owned = False
        self._ranking: list[Any] = []
        self._num_until_ranking = 0

    def attach(self, priority_of: Callable[[Any], Any] | None) -> None:
        """Rank owners by retention priority from now on. Mutates.

        Args:
            priority_of: An owner's retention priority, the smallest is evicted first; None while
                the owner's chunks must stay. Without it the owner of the oldest claim is first.
        """
        self._priority_of = priority_of
        self._num_until_ranking = 0

    @contextmanager
    def protect_owned(self) -> Iterator[None]:
        """Evict no chunk that has an owner while the context is open."""
        self._protects_owned = True
        try:
            yield
        finally:
            self._protects_owned = False

    def get(self, key: bytes) -> Any | None:
        """The chunk stored under `key`, or None."""
        return self._chunks.get(key)

    def insert(self, key: bytes, chunk: Any, req_context: Any = None) -> None:
        """Add a chunk that was just allocated; vLLM 0.33 names the request that stores it."""
        self._chunks[key] = chunk
        self.chunk_owners.store(key)

    def remove(self, key: bytes) -> None:
        """Remove a chunk whose store has failed."""
        del self._chunks[key]
        self.chunk_owners.discard(key)

    def touch(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Ignore recency: retention priorities include it."""

    def on_request_access(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Ignore recency, as `touch` does; vLLM 0.33 reports first accesses here."""

    def on_request_finished(
        self,
        key_groups: Sequence[Sequence[bytes]],
        insertion_only_keys: set[bytes],
        reused_keys: set[bytes],
        req_context: Any,
    ) -> None:
        """Ignore it: the scheduler claims whole paths of sessions."""

    def evict(self, n: int, protected: set[bytes]) -> list[tuple[bytes, Any]] | None:
        """Evict exactly `n` chunks, or none; see `CachePolicy`."""
        evicted = self._evicted(n, protected)
        if evicted and self.before_evicted is not None:
            self.before_evicted(evicted)
        return evicted

    def has_space(self, num_chunks: int, priority: Any) -> bool:
        """Whether chunks can be stored without evicting ones of higher priority.

        Asks only the few dozen owners of lowest priority.

        Args:
            num_chunks: Chunks to store (count).
            priority: Their retention priority; see `attach`.
        """
        priority_of = self._priority_of
        owners = self.chunk_owners
        num_missing = num_chunks + len(owners) - self._capacity - owners.num_unclaimed
        if num_missing <= 0 or priority_of is None:
            return True
        self._keep_ranking(num_missing)
        for owner in self._ranking[:_OWNERS_ASKED]:
            other = priority_of(owner)
            if other is not None and other <= priority:
                num_missing -= owners.num_claimed(owner)
                if num_missing <= 0:
                    return True
        return False

    def clear(self) -> None:
        """Forget every chunk and every owner."""
        self._chunks.clear()
        self.chunk_owners.clear()
        self._ranking, self._num_until_ranking = [], 0

    def _evicted(self, n: int, protected: set[bytes]) -> list[tuple[bytes, Any]] | None:
        if self._protects_owned:
            return self._victims(n, protected, ())
        self._keep_ranking(n)
        evicted = self._victims(n, protected, self._ranking)
        if evicted is None:
            self._ranking = self._ranked()
            evicted = self._victims(n, protected, self._ranking)
        return evicted

    def _keep_ranking(self, num_chunks: int) -> None:
        """Rank owners again after a few hundred evictions. Mutates."""
        if num_chunks > self._num_until_ranking:
            self._ranking = self._ranked()
            self._num_until_ranking = _EVICTED_PER_RANKING
        self._num_until_ranking -= num_chunks

    def _victims(
        self, n: int, protected: set[bytes], owners: Sequence[Any]
    ) -> list[tuple[bytes, Any]] | None:
        chunks = self._chunks

        def may_evict(key: bytes) -> bool:
            return key not in protected and chunks[key].ref_cnt == 0

        priority_of = self._priority_of
        if priority_of is not None:
            owners = [owner for owner in owners if priority_of(owner) is not None]
        keys = self.chunk_owners.victims(n, owners, may_evict)
        return None if keys is None else [(key, chunks.pop(key)) for key in keys]

    def _ranked(self) -> list[Any]:
        priority_of = self._priority_of
        if priority_of is None:
            return list(self.chunk_owners.owners())
        asked = ((priority_of(owner), owner) for owner in self.chunk_owners.owners())
        ranked = [(priority, owner) for priority, owner in asked if priority is not None]
        ranked.sort(key=lambda pair: pair[0])
        return [owner for _, owner in ranked]
