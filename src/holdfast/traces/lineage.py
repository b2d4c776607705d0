"""Block ids that identify prefixes, made from ids that may identify only a block's content."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.traces.record import common_prefix_length

__all__ = ["PrefixInterner", "PrefixTrail"]

# Readings number their files from 1.
_FIRST_OWN_SCOPE = 1 << 32


class PrefixInterner:
    """Gives each distinct chain of block hashes in a reading its own dense id.

    Published traces hash a block's content alone in places: the same hash is then seen behind
    different predecessors and at different depths, where no engine could reuse the block. Chaining
    makes `equal id = equal prefix` hold everywhere.
    """

    __slots__ = ("_ids", "_num_own_scopes", "_num_reserved")

    def __init__(self) -> None:
        self._num_own_scopes = 0
        self._ids: dict[tuple[int, int], int] = {}
        self._num_reserved = 0

    @property
    def next_id(self) -> int:
        """The smallest id that no chain has; all below it are taken."""
        return len(self._ids) + self._num_reserved

    def id_of(self, parent: int, block_hash: int) -> int:
        """Return the id of a block behind the chain `parent`, a new one for an unseen chain."""
        return self._ids.setdefault((parent, block_hash), self.next_id)

    def reserve_below(self, end_id: int) -> None:
        """Take all ids below `end_id`, for a file whose ids identify prefixes already. O(1)."""
        self._num_reserved += max(0, end_id - self.next_id)

    def fresh(self, num_ids: int) -> range:
        """Take so many new ids, for blocks that are known to be behind no other prefix. O(1)."""
        first = self.next_id
        self.reserve_below(first + num_ids)
        return range(first, self.next_id)

    def own_scope(self) -> int:
        """A scope that nothing else in the reading has, for files with many of them."""
        self._num_own_scopes += 1
        return _FIRST_OWN_SCOPE + self._num_own_scopes

    def trail(self, scope: int) -> PrefixTrail:
        """Start following one session; equal `scope` (>= 0) means hashes are comparable."""
        return PrefixTrail(self, -1 - scope)


class PrefixTrail:
    """Chains the prompts of one session, doing work only where a prompt leaves the last one."""

    __slots__ = ("_hashes", "_interner", "_previous", "_root")

    def __init__(self, interner: PrefixInterner, root: int) -> None:
        self._interner = interner
        self._root = root
        self._hashes: list[int] = []
        self._previous: tuple[int, ...] = ()

    def extend(self, hashes: Sequence[int]) -> tuple[int, ...]:
        """Return the chain ids of a prompt's full blocks; adds unseen chains to the interner."""
        hashes = list(hashes)
        kept = common_prefix_length(hashes, self._hashes)
        chain = list(self._previous[:kept])
        parent = chain[-1] if chain else self._root
        id_of = self._interner.id_of
        for block_hash in hashes[kept:]:
            parent = id_of(parent, block_hash)
            chain.append(parent)
        self._hashes = hashes
        self._previous = tuple(chain)
        return self._previous
