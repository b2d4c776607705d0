"""When the retention priorities of idle sessions are stale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

from holdfast.core.session import Session

__all__ = ["RescoreSchedule"]

_STALE_SHARE = 0.1


class RescoreSchedule:
    """Idle sessions by when their priority is stale; operations are O(log sessions).

    A priority that decays is a return rate, so its inverse is a time, and it is stale once a tenth
    of that time has passed: a session that has just paused is rescored often, one that has paused
    for long hardly ever.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session]] = []
        self._filed: dict[Session, float] = {}

    def scored(self, session: Session, now_s: float) -> None:
        """File a session whose priority was just computed. Mutates when it is stale."""
        if not session.state.is_paused or session.retention_priority <= 0.0:
            session.stale_at_s = math.inf
            return
        session.stale_at_s = stale_at_s = now_s + _STALE_SHARE / session.retention_priority
        if stale_at_s < self._filed.get(session, math.inf):
            self._file(session)

    def due(self, now_s: float, num_sessions: int) -> Iterator[Session]:
        """Remove at most so many sessions with a stale priority, stalest first. Mutates."""
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
        """Remove a session. Mutates."""
        self._filed.pop(session, None)

    def clear(self) -> None:
        """Remove all sessions. Mutates."""
        self._heap.clear()
        self._filed.clear()

    def _file(self, session: Session) -> None:
        self._filed[session] = session.stale_at_s
        heappush(self._heap, (session.stale_at_s, session.number, session))
