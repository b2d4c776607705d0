"""Block ids that identify prefixes, made from ids that may identify only a block's content."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.traces.record import common_prefix_length

__all__ = ["PrefixInterner", "PrefixTrail"]


class PrefixInterner:
    """Gives each distinct chain of block hashes in a reading its own dense id.

    Published traces hash a block's content alone in places: the same hash is then seen behind
    different predecessors and at different depths, where no engine could reuse the block. Chaining
    makes `equal id = equal prefix` hold everywhere.
    """

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def trail(self, scope: int) -> PrefixTrail:
        """Start following one session; equal `scope` (>= 0) means hashes are comparable."""
        return PrefixTrail(self._ids, -1 - scope)


class PrefixTrail:
    """Chains the prompts of one session, doing work only where a prompt leaves the last one."""

    __slots__ = ("_hashes", "_ids", "_previous", "_root")

    def __init__(self, ids: dict[tuple[int, int], int], root: int) -> None:
        self._ids = ids
        self._root = root
        self._hashes: list[int] = []
        self._previous: tuple[int, ...] = ()

    def extend(self, hashes: Sequence[int]) -> tuple[int, ...]:
        """Return the chain ids of a prompt's full blocks; adds unseen chains to the interner."""
        hashes = list(hashes)
        kept = common_prefix_length(hashes, self._hashes)
        chain = list(self._previous[:kept])
        parent = chain[-1] if chain else self._root
        ids = self._ids
        for block_hash in hashes[kept:]:
            parent = ids.setdefault((parent, block_hash), len(ids))
            chain.append(parent)
        self._hashes = hashes
        self._previous = tuple(chain)
        return self._previous
