"""Idle sessions: those that have paused and may return."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest
from itertools import islice

from holdfast.core.session import Session

__all__ = ["IdleSessions"]

_MAX_COMPARED = 256


class IdleSessions:
    """Paused sessions, the longest idle first; those without a resident block apart."""

    def __init__(self) -> None:
        self._with_blocks: dict[Session, None] = {}
        self._bare: dict[Session, None] = {}
        self._results: dict[Session, None] = {}

    def __iter__(self) -> Iterator[Session]:
        """Those with resident blocks, the longest idle first."""
        return iter(self._with_blocks)

    def __contains__(self, session: Session) -> bool:
        """Whether the session is idle and has resident blocks."""
        return session in self._with_blocks

    def enter(self, session: Session) -> None:
        """Add a session whose pause has begun. Mutates."""
        self._with_blocks[session] = None

    def lose_blocks(self, session: Session) -> None:
        """Set a session apart that has no resident block left. Mutates."""
        del self._with_blocks[session]
        self._bare[session] = None

    def result_known(self, session: Session) -> None:
        """Note that the tools of an idle session have finished. Mutates."""
        self._results[session] = None

    def result_awaited(self, session: Session) -> None:
        """Note that a tool of an idle session runs. Mutates."""
        self._results.pop(session, None)

    def results_known(self) -> Iterator[Session]:
        """Those whose tools have finished, the latest first."""
        return reversed(self._results)

    def leave(self, session: Session) -> None:
        """Remove a session that has returned or will not. Mutates."""
        self._with_blocks.pop(session, None)
        self._bare.pop(session, None)
        self._results.pop(session, None)

    def clear(self) -> None:
        """Remove all sessions. Mutates."""
        self._with_blocks.clear()
        self._bare.clear()
        self._results.clear()

    def soonest_back(
        self, priority_of: Callable[[Session], float], num_sessions: int
    ) -> list[Session]:
        """Sessions without a resident block, highest retention priority first. Pure.

        Compares the few hundred that lost their last block most recently, first by the priority
        that they had then.

        Args:
            priority_of: Retention priority of a session now.
            num_sessions: Sessions wanted (count).
        """
        recent = islice(reversed(self._bare), _MAX_COMPARED)
        likely = nlargest(4 * num_sessions, recent, key=_last_priority)
        return nlargest(num_sessions, likely, key=priority_of)


def _last_priority(session: Session) -> float:
    return session.retention_priority
