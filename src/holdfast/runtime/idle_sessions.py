"""Sessions that are away and may come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest
from itertools import islice

from holdfast.core.session import Session

__all__ = ["IdleSessions"]

_MAX_COMPARED = 256


class IdleSessions:
    """Paused sessions, the longest away foremost; those without a cached block apart."""

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

    def soonest_back(self, score: Callable[[Session], float], num_sessions: int) -> list[Session]:
        """So many of those without a cached block, highest score foremost. Pure.

        Compared are those few hundred that lost their last block most recently, first by the rate
        that they had then.
        """
        recent = islice(reversed(self._bare), _MAX_COMPARED)
        likely = nlargest(4 * num_sessions, recent, key=_last_rate)
        return nlargest(num_sessions, likely, key=score)


def _last_rate(session: Session) -> float:
    return session.rate
