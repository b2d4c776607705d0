"""Likelihood that a session sends a second turn, by its first prompt's prefix."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final

from holdfast.core.session import Session, SessionState

__all__ = ["OneShotPredictor"]

_MEMORY: Final = 0.99  # of a session's weight, for each later session with its prefix
_MAX_PREFIXES: Final = 512
_MAX_PENDING: Final = 256
_CHECKED_AT_ONCE: Final = 4
_MAX_SEEN: Final = 4096
_NEW: Final = object()  # stands for all prefixes that were new
_NO_ENDS: Final = (0.0, 0.0)


class OneShotPredictor:
    """Share of sessions that return after their first turn, by its prefix.

    Sessions of one application begin with the same instructions, so they share a first block. A
    new prefix gets the share of the prefixes that were new before it; the very first gets 1.

    Args:
        is_abandoned: Whether a paused session is unlikely ever to return.
    """

    def __init__(self, is_abandoned: Callable[[Session], bool]) -> None:
        self._is_abandoned = is_abandoned
        # By prefix: weights of sessions that returned, and of sessions that did not.
        self._ends: OrderedDict[Hashable, list[float]] = OrderedDict()
        self._pending: dict[Session, Hashable] = {}
        self._order: deque[Session] = deque()
        self._has_seen_return = False
        # Prefixes, and whether a second session had them; least recently seen first.
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()
        self._num_repeated = 0
        self._num_unrepeated = 0

    def repeat_share(self, prefix: Hashable) -> float:
        """Return the chance that another session will have the prefix (0 to 1). Pure.

        1 for a repeated prefix; else the share of prefixes that were repeated. A prefix counts as
        not repeated once some thousand others have come after it.
        """
        if self._seen.get(prefix):
            return 1.0
        return (self._num_repeated + 1.0) / (self._num_repeated + self._num_unrepeated + 1.0)

    def return_share(self, prefix: Hashable) -> float:
        """Return the share of sessions with this prefix that return (0 to 1). Pure."""
        num_back, num_gone = self._ends.get(prefix, _NO_ENDS)
        new_back, new_gone = self._ends.get(_NEW, _NO_ENDS)
        prior = (new_back + 1.0) / (new_back + new_gone + 1.0)
        return (num_back + prior) / (num_back + num_gone + 1.0)

    def turn_arrived(self, session: Session, prefix: Hashable) -> None:
        """Learn that a session sent a turn, and check a few other sessions. Mutates."""
        if session.num_turns <= 1:
            self._note_prefix(prefix)
            self._pending[session] = prefix
            self._order.append(session)
        else:
            self._end(session, is_back=True)
        self._check_pending()

    def _note_prefix(self, prefix: Hashable) -> None:
        was_repeated = self._seen.pop(prefix, None)
        self._num_repeated += was_repeated is False
        self._seen[prefix] = was_repeated is not None
        if len(self._seen) > _MAX_SEEN:
            _, was_repeated = self._seen.popitem(last=False)
            self._num_unrepeated += not was_repeated

    def _check_pending(self) -> None:
        for _ in range(min(_CHECKED_AT_ONCE, len(self._order))):
            session = self._order.popleft()
            if session not in self._pending:
                continue
            if self._will_not_return(session):
                self._end(session, is_back=False)
            elif len(self._pending) <= _MAX_PENDING:
                self._order.append(session)
            elif self._has_seen_return:
                del self._pending[session]
            else:  # no session has returned yet, so the length of pauses is unknown
                self._end(session, is_back=False)

    def _will_not_return(self, session: Session) -> bool:
        if session.state.is_paused:
            return self._is_abandoned(session)
        return session.state in (SessionState.CLOSED, SessionState.SUPERSEDED)

    def _end(self, session: Session, *, is_back: bool) -> None:
        if session not in self._pending:
            return
        prefix = self._pending.pop(session)
        self._has_seen_return |= is_back
        if prefix not in self._ends:
            self._count(_NEW, is_back=is_back)
        self._count(prefix, is_back=is_back)
        if len(self._ends) > _MAX_PREFIXES:
            self._ends.popitem(last=False)

    def _count(self, prefix: Hashable, *, is_back: bool) -> None:
        weights = self._ends.setdefault(prefix, [0.0, 0.0])
        self._ends.move_to_end(prefix)
        weights[0] = _MEMORY * weights[0] + is_back
        weights[1] = _MEMORY * weights[1] + (not is_back)
