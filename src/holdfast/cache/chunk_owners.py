"""Owners of a lower tier's chunks, and the chunks' eviction order.

A chunk is the KV of one prefix hash, so an owner's chunks form a path.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from holdfast.cache.resident_prefix import resident_length

__all__ = ["ChunkOwners"]

Owner = TypeVar("Owner", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)


class ChunkOwners(Generic[Owner, Key]):
    """The paths that owners claim, and which of their chunks are stored.

    An owner claims a path of keys, stored or not. Stored chunks without a claim are evicted first;
    then owners release their paths from the deep end, in the caller's order, and a chunk is evicted
    when its last owner releases it. So a shared chunk stays as long as its owner of the highest
    retention priority keeps it, and no chunk outlives one that it extends.
    """

    def __init__(self) -> None:
        self._paths: dict[Owner, list[Key]] = {}
        self._num_claims: dict[Key, int] = {}
        self._stored: set[Key] = set()
        self._unclaimed: dict[Key, None] = {}  # stored; longest unclaimed first

    def __len__(self) -> int:
        """Stored chunks (count)."""
        return len(self._stored)

    @property
    def num_unclaimed(self) -> int:
        """Stored chunks without a claim (count)."""
        return len(self._unclaimed)

    def num_claimed(self, owner: Owner) -> int:
        """Count the chunks that `owner` claims; 0 unless the last is stored. Pure."""
        path = self._paths.get(owner)
        return len(path) if path and path[-1] in self._stored else 0

    def owners(self) -> Iterator[Owner]:
        """Yield owners with a path."""
        return iter(self._paths)

    def claim(self, owner: Owner, path: Sequence[Key]) -> None:
        """Replace the path that `owner` claims. Mutates.

        O(keys that differ), and a bisection: paths that agree at a depth agree before it.
        """
        known = self._paths.setdefault(owner, [])
        num_most = min(len(known), len(path))
        num_shared = resident_length(num_most, lambda i: known[i] == path[i], num_most)
        self._release(known[num_shared:])
        del known[num_shared:]
        for key in path[num_shared:]:
            known.append(key)
            self._num_claims[key] = self._num_claims.get(key, 0) + 1
            self._unclaimed.pop(key, None)

    def drop(self, owner: Owner) -> None:
        """Forget `owner` and its claims. Mutates."""
        self._release(self._paths.pop(owner, []))

    def store(self, key: Key) -> None:
        """Note that the chunk is stored. Mutates."""
        self._stored.add(key)
        if key not in self._num_claims:
            self._unclaimed[key] = None

    def discard(self, key: Key) -> None:
        """Note that the chunk is no longer stored; claims on it stay. Mutates."""
        self._stored.discard(key)
        self._unclaimed.pop(key, None)

    def clear(self) -> None:
        """Forget all chunks and all claims. Mutates."""
        self._paths.clear()
        self._num_claims.clear()
        self._stored.clear()
        self._unclaimed.clear()

    def victims(
        self, num_chunks: int, lowest_first: Iterable[Owner], may_evict: Callable[[Key], bool]
    ) -> list[Key] | None:
        """Remove exactly `num_chunks` victims, or none and return None. Mutates.

        Args:
            num_chunks: Chunks to evict (count, >= 0).
            lowest_first: Owners whose chunks may be evicted, lowest retention priority first.
            may_evict: Whether a stored chunk may be evicted now; an owner keeps the chunks before
                one that may not.
        """
        found = list(islice(filter(may_evict, self._unclaimed), num_chunks))
        kept_lengths: dict[Owner, int] = {}
        num_released: dict[Key, int] = {}
        for owner in lowest_first:
            if len(found) >= num_chunks:
                break
            path = self._paths.get(owner, [])
            length = len(path)
            while length and len(found) < num_chunks:
                key = path[length - 1]
                if key in self._stored and self._num_claims[key] == num_released.get(key, 0) + 1:
                    if not may_evict(key):
                        break
                    found.append(key)
                num_released[key] = num_released.get(key, 0) + 1
                length -= 1
            kept_lengths[owner] = length
        if len(found) < num_chunks:
            return None
        for key in found:
            self.discard(key)
        for owner, length in kept_lengths.items():
            path = self._paths.get(owner, [])
            self._release(path[length:])
            del path[length:]
        return found

    def _release(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._num_claims[key] -= 1
            if not self._num_claims[key]:
                del self._num_claims[key]
                if key in self._stored:
                    self._unclaimed[key] = None

    def check_integrity(self) -> None:
        """Assert that counts and paths agree; for tests. O(keys)."""
        counts: dict[Key, int] = {}
        for path in self._paths.values():
            for key in path:
                counts[key] = counts.get(key, 0) + 1
        assert counts == self._num_claims
        assert set(self._unclaimed) == {key for key in self._stored if key not in counts}
