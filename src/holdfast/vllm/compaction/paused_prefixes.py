"""Prefixes of sessions that paused, watched until a block of theirs is given away.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.vllm.compaction.catalog import Compaction

__all__ = ["PausedPrefix", "PausedPrefixes"]

_MOST_PER_BLOCK: Final = 4
_GROUP_ID_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class PausedPrefix:
    """The part of a session's last prompt that fills blocks.

    Attributes:
        hashes: Prefix hashes of the blocks, as the KV cache knows them.
        block_ids: The blocks.
        key: Prefix hash of the same tokens in the client's own prompt.
        num_tokens: Tokens of the client's prompt that they stand for (count).
        base: The compaction that the blocks begin with, or None.
    """

    hashes: Sequence[bytes]
    block_ids: Sequence[int]
    key: bytes
    num_tokens: int
    base: Compaction | None


@dataclass(slots=True)
class _Watched:
    """What a block should contain, and the prefixes that need it, by last hash."""

    block_hash: bytes
    needed_by: set[bytes] = field(default_factory=set)


class PausedPrefixes:
    """Finds paused prefixes of which a block was just allocated to another request.

    Its content is still there: vLLM overwrites it in the step that is being planned.

    Args:
        pool: vLLM's block pool.
        group: Cache group of the blocks.
    """

    def __init__(self, pool: Any, group: int = 0) -> None:
        self._pool = pool
        self._group = group
        self._paused: OrderedDict[bytes, PausedPrefix] = OrderedDict()  # by their last hash
        self._watched: dict[int, _Watched] = {}

    def __len__(self) -> int:
        """Prefixes that are watched (count)."""
        return len(self._paused)

    def resident(self, hashes: Sequence[bytes]) -> list[int] | None:
        """Blocks with these prefix hashes; None if one is not cached. Pure."""
        found = []
        for block_hash in hashes:
            blocks = self._pool.get_cached_block(block_hash, [self._group])
            if blocks is None:
                return None
            found.append(blocks[0].block_id)
        return found

    def num_resident(self, hashes: Sequence[bytes]) -> int:
        """Leading prefix hashes whose blocks are cached (count). Pure."""
        cached = (self._pool.get_cached_block(one, [self._group]) for one in hashes)
        return next((n for n, blocks in enumerate(cached) if blocks is None), len(hashes))

    def watch(self, prefix: PausedPrefix) -> list[PausedPrefix]:
        """Watch a prefix whose blocks are cached. Mutates.

        Returns:
            Those that are not watched any more, as there are too many; the oldest ones.
        """
        last = prefix.hashes[-1]
        dropped = self.forget([last])
        self._paused[last] = prefix
        for block_id, block_hash in zip(prefix.block_ids, prefix.hashes, strict=True):
            self._watched.setdefault(block_id, _Watched(block_hash)).needed_by.add(last)
        while len(self._paused) > _MOST_PER_BLOCK * len(self._pool.blocks):
            dropped += self.forget([next(iter(self._paused))])
        return dropped

    def forget(self, hashes: Iterable[bytes]) -> list[PausedPrefix]:
        """Stop to watch prefixes that end with one of these hashes. Mutates.

        Returns:
            Those that were watched.
        """
        found = []
        for last in hashes:
            prefix = self._paused.pop(last, None)
            if prefix is None:
                continue
            found.append(prefix)
            for block_id in prefix.block_ids:
                needed_by = self._watched[block_id].needed_by
                needed_by.discard(last)
                if not needed_by:
                    del self._watched[block_id]
        return found

    def clear(self) -> list[PausedPrefix]:
        """Stop to watch any prefix. Mutates; returns those that were watched."""
        return self.forget(list(self._paused))

    def dropped(self, new_block_ids: Iterable[int]) -> Iterator[tuple[PausedPrefix, bool]]:
        """Take out prefixes that lose a block to a request of this step. Mutates.

        Args:
            new_block_ids: Blocks that requests were given in this step, hits included.

        Yields:
            Each prefix, and whether all its blocks still have their content.
        """
        new = set(new_block_ids)
        lost: dict[bytes, None] = {}
        for block_id in sorted(new & self._watched.keys()):
            watched = self._watched[block_id]
            if not self._has(block_id, watched.block_hash):
                lost.update(dict.fromkeys(sorted(watched.needed_by)))
        for prefix in self.forget(lost):
            pairs = zip(prefix.block_ids, prefix.hashes, strict=True)
            yield prefix, all(one in new or self._has(one, content) for one, content in pairs)

    def _has(self, block_id: int, block_hash: bytes) -> bool:
        """Whether a block has the content of this hash."""
        content = self._pool.blocks[block_id].block_hash
        return content is not None and content[:-_GROUP_ID_BYTES] == block_hash
