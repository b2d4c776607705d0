"""Sessions that are away and may come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.core.sessions import Session

__all__ = ["Absent"]


class Absent:
    """Sessions that paused, the longest away foremost; those without a cached block apart."""

    def __init__(self) -> None:
        self._with_blocks: dict[Session, None] = {}
        self._bare: dict[Session, None] = {}

    def __iter__(self) -> Iterator[Session]:
        """Those that have blocks in the cache, the longest away foremost."""
        return iter(self._with_blocks)

    def __contains__(self, session: Session) -> bool:
        """Whether the session is away and has blocks in the cache."""
        return session in self._with_blocks

    def enter(self, session: Session) -> None:
        """A pause has begun. Mutates."""
        self._with_blocks[session] = None

    def bare(self, session: Session) -> None:
        """The session has no cached block any more. Mutates."""
        del self._with_blocks[session]
        self._bare[session] = None

    def leave(self, session: Session) -> None:
        """The session is back, or will not be. Mutates."""
        self._with_blocks.pop(session, None)
        self._bare.pop(session, None)

    def clear(self) -> None:
        """Nobody is away. Mutates."""
        self._with_blocks.clear()
        self._bare.clear()

    def by(self, score: Callable[[Session], float]) -> list[Session]:
        """All of them, highest score foremost. Pure; O(sessions log sessions)."""
        return sorted([*self._with_blocks, *self._bare], key=score, reverse=True)
