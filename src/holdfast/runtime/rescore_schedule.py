"""Which paused sessions' scores have aged so much that they are worth computing anew."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

from holdfast.core.session import Session

__all__ = ["RescoreSchedule"]

_STALE_SHARE = 0.1


class RescoreSchedule:
    """Paused sessions by when their scores go stale; every operation is O(log sessions).

    A score is a rate of return, so its inverse is a time, and it is stale once a tenth of that
    time has passed: what has just paused is looked at often, what has long been away hardly ever.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session]] = []
        self._filed: dict[Session, float] = {}

    def rated(self, session: Session, now_s: float) -> None:
        """A session's rate was computed. Mutates when it goes stale."""
        if not session.state.is_paused or session.rate <= 0.0:
            session.stale_at_s = math.inf
            return
        session.stale_at_s = stale_at_s = now_s + _STALE_SHARE / session.rate
        if stale_at_s < self._filed.get(session, math.inf):
            self._file(session)

    def due(self, now_s: float, num_sessions: int) -> Iterator[Session]:
        """Take out at most so many sessions whose rate is stale, the stalest first."""
        heap, filed = self._heap, self._filed
        while num_sessions > 0 and heap and heap[0][0] <= now_s:
            at_s, _, session = heappop(heap)
            if filed.get(session) != at_s:
                continue
            del filed[session]
            if session.stale_at_s > now_s:
                if session.stale_at_s < math.inf:
                    self._file(session)
                continue
            num_sessions -= 1
            yield session

    def forget(self, session: Session) -> None:
        """The session is not of interest any more."""
        self._filed.pop(session, None)

    def clear(self) -> None:
        """Forget all sessions."""
        self._heap.clear()
        self._filed.clear()

    def _file(self, session: Session) -> None:
        self._filed[session] = session.stale_at_s
        heappush(self._heap, (session.stale_at_s, session.number, session))
