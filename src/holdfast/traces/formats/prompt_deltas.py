"""Whole prompts of rows that record only additions to the previous prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["PromptDeltas"]


class PromptDeltas:
    """Builds a session's prompts from each turn's addition, in blocks.

    A block that equals one recorded block keeps its hash. Other blocks hash their pieces, so that
    they are shared if all pieces are.
    """

    def __init__(self, session_id: str, block_tokens: int) -> None:
        self._session_id = session_id
        self._block_tokens = block_tokens
        self._hashes: list[int] = []
        # Pieces of the last, partial block: content, first token in it, number of tokens.
        self._partial: list[tuple[str, int, int]] = []
        self.num_tokens = 0
        self._num_unnamed = 0

    def add(self, hashes: Sequence[int], num_tokens: int) -> None:
        """Add recorded content.

        Args:
            hashes: Hashes of its blocks in order, with or without the partial last one's.
            num_tokens: Its length, >= 0.
        """
        left = num_tokens
        for block_hash in hashes:
            self._add(f"#{block_hash}", min(left, self._block_tokens), block_hash)
            left -= min(left, self._block_tokens)
        self.add_unnamed(left)

    def add_unnamed(self, num_tokens: int) -> None:
        """Add content without hashes, such as an answer; no other session shares it."""
        self._num_unnamed += 1
        self._add(f"{self._num_unnamed} of {self._session_id}", num_tokens)

    def hashes(self) -> list[int]:
        """Return the hashes of the full blocks so far."""
        return self._hashes.copy()

    def _add(self, content: str, num_tokens: int, block_hash: int | None = None) -> None:
        start = 0
        while start < num_tokens:
            num_free = self._block_tokens - self.num_tokens % self._block_tokens
            num_taken = min(num_free, num_tokens - start)
            self._partial.append((content, start, num_taken))
            self.num_tokens += num_taken
            start += num_taken
            if num_taken == num_free:
                whole = block_hash if num_taken == self._block_tokens else None
                self._hashes.append(self._digest() if whole is None else whole)
                self._partial.clear()

    def _digest(self) -> int:
        written = repr(self._partial).encode()
        # Below 0, so that it equals no recorded hash.
        return -1 - int.from_bytes(hashlib.blake2b(written, digest_size=8).digest())
