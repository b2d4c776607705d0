"""What an engine's prefix cache holds, as far as its requests tell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from holdfast.gateway.prompt_path import Piece

__all__ = ["Residency"]

_MOST_PIECES: Final = 1 << 20


class Residency:
    """Pieces of prompts that an engine has computed; the least recently used go first.

    An engine frees a request's blocks tail first, so of one path the end leaves before the
    beginning.

    Attributes:
        capacity_bytes: Bytes of prompts that its KV cache holds; None if not known.
        held_bytes: Bytes of the pieces held.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self._pieces: OrderedDict[bytes, int] = OrderedDict()

    def num_resident(self, path: Sequence[Piece]) -> int:
        """Leading bytes of a path that are held. Pure; O(pieces)."""
        total = 0
        for piece in path:
            if piece.key not in self._pieces:
                break
            total += piece.num_bytes
        return total

    def add(self, path: Sequence[Piece]) -> None:
        """Take in that the engine computes a path. Mutates; O(pieces)."""
        for piece in reversed(path):
            if piece.key in self._pieces:
                self._pieces.move_to_end(piece.key)
            else:
                self._pieces[piece.key] = piece.num_bytes
                self.held_bytes += piece.num_bytes
        while self._is_over():
            _, num_bytes = self._pieces.popitem(last=False)
            self.held_bytes -= num_bytes

    def clear(self) -> None:
        """Forget everything: the engine has restarted. Mutates."""
        self._pieces.clear()
        self.held_bytes = 0

    def _is_over(self) -> bool:
        if len(self._pieces) > _MOST_PIECES:
            return True
        return self.capacity_bytes is not None and self.held_bytes > self.capacity_bytes
