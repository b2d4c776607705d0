"""The offload port: the runtime's interface to the tiers below the KV cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from holdfast.core.session import Session

__all__ = ["NoOffload", "OffloadPort"]


class OffloadPort(Protocol):
    """Tiers that store copies of KV blocks. Questions change nothing.

    Attributes:
        capacity_blocks: Prefix hashes whose blocks can be stored in host memory (count).
    """

    capacity_blocks: int

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Take in that a session's path consists of these blocks now. Mutates."""

    def forget(self, session: Session) -> None:
        """Forget a session. Mutates."""

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """Prefix hashes of a path stored from `first` on (count); a good `guess` is cheap."""
        ...

    def num_failed(self, hashes: Sequence[bytes], first: int) -> int:
        """Prefix hashes of a path from `first` on that a failed load has lost (count).

        The block at `first` was stored and could not be loaded; those after it that are stored are
        of no use without it. 0 if the load of that block has not failed.
        """
        ...

    def load_s(self, num_blocks: float) -> float:
        """Time to load so many blocks (s); inf before it is known."""
        ...

    def is_loading(self, hashes: Sequence[bytes]) -> bool:
        """Whether a prefetch of missing blocks of a path is in flight."""
        ...


class NoOffload:
    """No tier: evicted blocks are computed again."""

    capacity_blocks = 0

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """Do nothing."""

    def forget(self, session: Session) -> None:
        """Do nothing."""

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """0."""
        del hashes, first, guess
        return 0

    def num_failed(self, hashes: Sequence[bytes], first: int) -> int:
        """0."""
        del hashes, first
        return 0

    def load_s(self, num_blocks: float) -> float:
        """Infinity."""
        del num_blocks
        return math.inf

    def is_loading(self, hashes: Sequence[bytes]) -> bool:
        """False."""
        del hashes
        return False
