"""Turns block hashes, which may identify content only, into ids of prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from holdfast.traces.record import common_prefix_length

__all__ = ["PrefixInterner", "PrefixTrail"]

# Readings number their files from 1.
_FIRST_OWN_SCOPE = 1 << 32


class PrefixInterner:
    """Gives each distinct prefix of block hashes in a reading a dense id.

    Some published traces hash a block's content alone: the same hash then follows different
    predecessors, where no engine could reuse the block. An id of hash and predecessor makes
    `equal id = equal prefix` hold everywhere.
    """

    __slots__ = ("_ids", "_num_own_scopes", "_num_reserved")

    def __init__(self) -> None:
        self._num_own_scopes = 0
        self._ids: dict[tuple[int, int], int] = {}
        self._num_reserved = 0

    @property
    def next_id(self) -> int:
        """The smallest unused id; all ids below it are in use."""
        return len(self._ids) + self._num_reserved

    def ids_after(self, parent: int, hashes: Iterable[int]) -> Iterator[int]:
        """Return the ids of a path of blocks after `parent`; new for unseen prefixes."""
        ids, num_reserved = self._ids, self._num_reserved
        for block_hash in hashes:
            parent = ids.setdefault((parent, block_hash), len(ids) + num_reserved)
            yield parent

    def reserve_below(self, end_id: int) -> None:
        """Reserve all ids below `end_id`, for a file whose ids identify prefixes. O(1)."""
        self._num_reserved += max(0, end_id - self.next_id)

    def fresh(self, num_ids: int) -> range:
        """Reserve new ids for blocks whose prefix is known to be unique. O(1)."""
        first = self.next_id
        self.reserve_below(first + num_ids)
        return range(first, self.next_id)

    def own_scope(self) -> int:
        """Return a scope that is unique in the reading, for files with many scopes."""
        self._num_own_scopes += 1
        return _FIRST_OWN_SCOPE + self._num_own_scopes

    def trail(self, scope: int) -> PrefixTrail:
        """Return a new session's trail; hashes of equal `scope` (>= 0) are comparable."""
        return PrefixTrail(self, -1 - scope)


class PrefixTrail:
    """The prefix ids of one session's prompts; O(new blocks) a prompt."""

    __slots__ = ("_hashes", "_interner", "_previous", "_root")

    def __init__(self, interner: PrefixInterner, root: int) -> None:
        self._interner = interner
        self._root = root
        self._hashes: list[int] = []
        self._previous: tuple[int, ...] = ()

    def extend(self, hashes: Sequence[int]) -> tuple[int, ...]:
        """Return the prefix ids of a prompt's full blocks; interns unseen ones."""
        hashes = list(hashes)
        kept = common_prefix_length(hashes, self._hashes)
        known = self._previous[:kept]
        parent = known[-1] if known else self._root
        self._hashes = hashes
        self._previous = (*known, *self._interner.ids_after(parent, hashes[kept:]))
        return self._previous
