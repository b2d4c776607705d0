"""What the runtime asks of a store below the KV cache, and tells it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from holdfast.core.session import Session

__all__ = ["NoOffload", "OffloadPort"]


class OffloadPort(Protocol):
    """KV blocks that a copy brings back. Questions change nothing."""

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """The session's chain consists of these blocks now."""

    def forget(self, session: Session) -> None:
        """The session will not be mentioned again."""

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """Prefix hashes of a chain held from index `first` on (count); a good `guess` is cheap."""
        ...

    def load_s(self, num_blocks: float) -> float:
        """Time to copy so many blocks back (s); inf before it is known."""
        ...


class NoOffload:
    """No store: nothing comes back but by computing."""

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Take note of nothing."""

    def forget(self, session: Session) -> None:
        """Take note of nothing."""

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """None."""
        del hashes, first, guess
        return 0

    def load_s(self, num_blocks: float) -> float:
        """Never."""
        del num_blocks
        return math.inf
