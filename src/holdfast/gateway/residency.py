"""What an engine's prefix cache holds, as far as its requests tell."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import Final

from holdfast.gateway.prompt_path import PromptPath

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

    def num_resident(self, path: PromptPath) -> int:
        """Leading bytes of a path that are held. Pure; O(log pieces), as ends leave first."""
        held, keys = self._pieces, path.keys
        number = bisect_left(range(len(keys)), 1, key=lambda index: keys[index] not in held)
        return path.ends[number - 1] if number else 0

    def add(self, path: PromptPath) -> None:
        """Take in that the engine computes a path. Mutates; O(pieces)."""
        held = self._pieces
        starts = (0, *path.ends)
        for key, start, end in zip(
            reversed(path.keys), reversed(starts[:-1]), reversed(path.ends), strict=True
        ):
            if key in held:
                held.move_to_end(key)
            else:
                held[key] = end - start
                self.held_bytes += end - start
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
