"""Whose chains the chunks of a store belong to, and which of them go first when it is full.

A chunk is one prefix hash's worth of KV, so an owner's chunks form a chain. Knows nothing about
time, worth or what a chunk holds.
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
    """Which stored chunks are wanted by whom.

    An owner claims a chain of keys, stored or not. A stored chunk that nobody claims goes first;
    then owners give up their chains from the deep end, in the order that the caller says, and a
    chunk goes when its last claimant has given it up. So what several owners share stays as long as
    the one that is worth most, and no chunk outlives one that it continues.
    """

    def __init__(self) -> None:
        self._chains: dict[Owner, list[Key]] = {}
        self._num_claims: dict[Key, int] = {}
        self._stored: set[Key] = set()
        self._unclaimed: dict[Key, None] = {}  # stored, the longest without a claim foremost

    def __len__(self) -> int:
        """Stored chunks (count)."""
        return len(self._stored)

    @property
    def num_unclaimed(self) -> int:
        """Stored chunks that nobody claims (count)."""
        return len(self._unclaimed)

    def num_of(self, owner: Owner) -> int:
        """Chunks that `owner` claims, shared ones included; 0 unless the last is stored."""
        chain = self._chains.get(owner)
        return len(chain) if chain and chain[-1] in self._stored else 0

    def owners(self) -> Iterator[Owner]:
        """Owners with a chain."""
        return iter(self._chains)

    def claim(self, owner: Owner, chain: Sequence[Key]) -> None:
        """Make `chain` what `owner` wants, in place of what it wanted. Mutates.

        O(keys that differ), and a bisection: chains that agree at a depth agree before it.
        """
        known = self._chains.setdefault(owner, [])
        num_most = min(len(known), len(chain))
        num_shared = resident_length(num_most, lambda i: known[i] == chain[i], num_most)
        self._release(known[num_shared:])
        del known[num_shared:]
        for key in chain[num_shared:]:
            known.append(key)
            self._num_claims[key] = self._num_claims.get(key, 0) + 1
            self._unclaimed.pop(key, None)

    def drop(self, owner: Owner) -> None:
        """`owner` wants nothing any more. Mutates."""
        self._release(self._chains.pop(owner, []))

    def store(self, key: Key) -> None:
        """The chunk is stored now. Mutates."""
        self._stored.add(key)
        if key not in self._num_claims:
            self._unclaimed[key] = None

    def discard(self, key: Key) -> None:
        """The chunk is stored no more. Mutates; claims on it stay."""
        self._stored.discard(key)
        self._unclaimed.pop(key, None)

    def clear(self) -> None:
        """Nothing is stored and nobody wants anything. Mutates."""
        self._chains.clear()
        self._num_claims.clear()
        self._stored.clear()
        self._unclaimed.clear()

    def victims(
        self, num_chunks: int, cheapest_first: Iterable[Owner], may_go: Callable[[Key], bool]
    ) -> list[Key] | None:
        """Take out exactly so many chunks, or none and return None. Mutates.

        Args:
            num_chunks: Chunks wanted (count, >= 0).
            cheapest_first: Owners that may be asked, who is worth least foremost.
            may_go: Whether a stored chunk may go now; an owner whose next one may not is not
                asked further.
        """
        found = list(islice(filter(may_go, self._unclaimed), num_chunks))
        kept_lengths: dict[Owner, int] = {}
        given_up: dict[Key, int] = {}
        for owner in cheapest_first:
            if len(found) >= num_chunks:
                break
            chain = self._chains.get(owner, [])
            length = len(chain)
            while length and len(found) < num_chunks:
                key = chain[length - 1]
                if key in self._stored and self._num_claims[key] == given_up.get(key, 0) + 1:
                    if not may_go(key):
                        break
                    found.append(key)
                given_up[key] = given_up.get(key, 0) + 1
                length -= 1
            kept_lengths[owner] = length
        if len(found) < num_chunks:
            return None
        for key in found:
            self.discard(key)
        for owner, length in kept_lengths.items():
            chain = self._chains.get(owner, [])
            self._release(chain[length:])
            del chain[length:]
        return found

    def _release(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._num_claims[key] -= 1
            if not self._num_claims[key]:
                del self._num_claims[key]
                if key in self._stored:
                    self._unclaimed[key] = None

    def check_integrity(self) -> None:
        """Assert that counts and chains agree; for tests. O(keys)."""
        counts: dict[Key, int] = {}
        for chain in self._chains.values():
            for key in chain:
                counts[key] = counts.get(key, 0) + 1
        assert counts == self._num_claims
        assert set(self._unclaimed) == {key for key in self._stored if key not in counts}
