"""How many of the sessions that begin alike ever send a second turn, or are followed by others."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

from holdfast.core.session import Session, SessionState

__all__ = ["OneShotPredictor"]

_MEMORY: Final = 0.99  # of a session's weight, for each session after it that began alike
_MAX_BEGINNINGS: Final = 512
_MAX_PENDING: Final = 256
_LEARNED_AT_ONCE: Final = 4
_MAX_SEEN: Final = 4096
_NEW: Final = object()  # stands for beginnings that were new
_NONE: Final = (0.0, 0.0)


class OneShotPredictor:
    """Share of sessions that return after their first turn, by how their first prompt begins.

    Sessions of one application begin with the same instructions, so they share a first block. Of a
    beginning that was never seen before as much is expected as of those that were new when they
    came; at first, that all return.

    Args:
        is_gone: Whether a paused session is past hoping for.
    """

    def __init__(self, is_gone: Callable[[Session], bool]) -> None:
        self._is_gone = is_gone
        # By beginning: sessions that came back, sessions that did not.
        self._ends: OrderedDict[Hashable, list[float]] = OrderedDict()
        self._pending: dict[Session, Hashable] = {}
        self._order: deque[Session] = deque()
        self._has_seen_return = False
        # Beginnings that came, and whether they came again; the longest unseen foremost.
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()
        self._num_again = 0
        self._num_once = 0

    def recurrence(self, beginning: Hashable) -> float:
        """Share of sessions with this beginning that others follow which begin so too (0 to 1).

        1 for what has come again; for the rest, the share of beginnings that did. What has not is
        counted when some thousand others have come since. Pure.
        """
        if self._seen.get(beginning):
            return 1.0
        return (self._num_again + 1.0) / (self._num_again + self._num_once + 1.0)

    def share(self, beginning: Hashable) -> float:
        """Share of sessions with this beginning that return (0 to 1). Pure."""
        num_back, num_gone = self._ends.get(beginning, _NONE)
        new_back, new_gone = self._ends.get(_NEW, _NONE)
        expected = (new_back + 1.0) / (new_back + new_gone + 1.0)
        return (num_back + expected) / (num_back + num_gone + 1.0)

    def turn_arrived(self, session: Session, beginning: Hashable) -> None:
        """A session has sent its first turn, or a later one. Mutates; looks at a few others."""
        if session.num_turns <= 1:
            self._note_seen(beginning)
            self._pending[session] = beginning
            self._order.append(session)
        else:
            self._end(session, is_back=True)
        self._look()

    def _note_seen(self, beginning: Hashable) -> None:
        was_again = self._seen.pop(beginning, None)
        self._num_again += was_again is False
        self._seen[beginning] = was_again is not None
        if len(self._seen) > _MAX_SEEN:
            _, was_again = self._seen.popitem(last=False)
            self._num_once += not was_again

    def _look(self) -> None:
        for _ in range(min(_LEARNED_AT_ONCE, len(self._order))):
            session = self._order.popleft()
            if session not in self._pending:
                continue
            if self._will_not_return(session):
                self._end(session, is_back=False)
            elif len(self._pending) <= _MAX_PENDING:
                self._order.append(session)
            elif self._has_seen_return:
                del self._pending[session]
            else:  # where nobody ever returned, nothing says how long to wait
                self._end(session, is_back=False)

    def _will_not_return(self, session: Session) -> bool:
        if session.state.is_paused:
            return self._is_gone(session)
        return session.state in (SessionState.CLOSED, SessionState.SUPERSEDED)

    def _end(self, session: Session, *, is_back: bool) -> None:
        if session not in self._pending:
            return
        beginning = self._pending.pop(session)
        self._has_seen_return |= is_back
        if beginning not in self._ends:
            self._count(_NEW, is_back=is_back)
        self._count(beginning, is_back=is_back)
        if len(self._ends) > _MAX_BEGINNINGS:
            self._ends.popitem(last=False)

    def _count(self, beginning: Hashable, *, is_back: bool) -> None:
        counts = self._ends.setdefault(beginning, [0.0, 0.0])
        self._ends.move_to_end(beginning)
        counts[0] = _MEMORY * counts[0] + is_back
        counts[1] = _MEMORY * counts[1] + (not is_back)
