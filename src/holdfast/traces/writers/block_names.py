"""Dense block ids in a written format's block size, with partial last blocks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from holdfast.errors import ConfigError
from holdfast.traces.record import Session, Turn

__all__ = ["BlockNames"]


class BlockNames:
    """Numbers the distinct prefixes of a written trace, from 0."""

    def __init__(self, block_size_tokens: int | None) -> None:
        """Set the written trace's block size; None keeps each session's own."""
        self._block_size_tokens = block_size_tokens
        self._names: dict[Hashable, int] = {}
        self._num_names = 0

    def is_coarser(self, session: Session) -> bool:
        """Whether written blocks are larger, so that prompts share less; pure."""
        return (self._block_size_tokens or 0) > session.block_size_tokens

    def of(self, session: Session, turn: Turn) -> list[int]:
        """Return the numbers of all blocks of a prompt; adds new ones.

        Blocks without an id, such as the partial last one, get unique numbers.

        Raises:
            ConfigError: Neither block size is a multiple of the other.
        """
        size = self._block_size_tokens or session.block_size_tokens
        num_blocks = -(-turn.prompt_tokens // size)
        names = [self._name(key) for key in self._keys(session, turn, size)][:num_blocks]
        names.extend(self._next_name() for _ in range(num_blocks - len(names)))
        return names

    @staticmethod
    def _keys(session: Session, turn: Turn, size: int) -> Iterator[Hashable]:
        own = session.block_size_tokens
        if size % own == 0:
            stride = size // own
            yield from turn.block_ids[stride - 1 :: stride]
        elif own % size == 0:
            yield from ((block, part) for block in turn.block_ids for part in range(own // size))
        else:
            raise ConfigError(
                f"session {session.session_id!r} has blocks of {own} tokens, which cannot be "
                f"written as blocks of {size}",
                hint=f"--block-size {own} fits, and so does any multiple of it",
            )

    def _name(self, key: Hashable) -> int:
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._next_name()
        return name

    def _next_name(self) -> int:
        self._num_names += 1
        return self._num_names - 1
