"""Prompts of rows that record only what each adds to the session's last prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["PromptDeltas"]


class PromptDeltas:
    """Puts a session's prompts together from what each turn adds, and cuts them into blocks.

    A block that is all of one recorded block has its hash. Others are known by what they are made
    of, so that they are shared where all of it is.
    """

    def __init__(self, session_id: str, block_tokens: int) -> None:
        self._session_id = session_id
        self._block_tokens = block_tokens
        self._hashes: list[int] = []
        # What the last block, not yet full, is made of: content, first token in it, tokens.
        self._partial: list[tuple[str, int, int]] = []
        self.num_tokens = 0
        self._num_unnamed = 0

    def add(self, hashes: Sequence[int], num_tokens: int) -> None:
        """Add recorded content.

        Args:
            hashes: Those of its blocks in order, the partial last one's included or not.
            num_tokens: Its length, >= 0.
        """
        left = num_tokens
        for block_hash in hashes:
            self._add(f"#{block_hash}", min(left, self._block_tokens), block_hash)
            left -= min(left, self._block_tokens)
        self.add_unnamed(left)

    def add_unnamed(self, num_tokens: int) -> None:
        """Add content without hashes, which only this session has: an answer."""
        self._num_unnamed += 1
        self._add(f"{self._num_unnamed} of {self._session_id}", num_tokens)

    def hashes(self) -> list[int]:
        """The hashes of the full blocks of all that was added so far."""
        return self._hashes.copy()

    def _add(self, content: str, num_tokens: int, block_hash: int | None = None) -> None:
        start = 0
        while start < num_tokens:
            room = self._block_tokens - self.num_tokens % self._block_tokens
            taken = min(room, num_tokens - start)
            self._partial.append((content, start, taken))
            self.num_tokens += taken
            start += taken
            if taken == room:
                whole = block_hash if taken == self._block_tokens else None
                self._hashes.append(self._digest() if whole is None else whole)
                self._partial.clear()

    def _digest(self) -> int:
        written = repr(self._partial).encode()
        # Below 0, where no recorded hash is.
        return -1 - int.from_bytes(hashlib.blake2b(written, digest_size=8).digest())
