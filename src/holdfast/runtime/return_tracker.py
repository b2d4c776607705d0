"""Tracks how pauses end and estimates when a session is abandoned."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from holdfast.core.session import Session
from holdfast.predict.features import UNKNOWN_GAP, GapFeatures
from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["ReturnTracker"]

_GONE_QUANTILE = 0.98
_CHECKED_AT_ONCE = 4
_MAX_UNEXPLAINED = 256


class ReturnTracker:
    """Follows pauses to their end, a few at a time.

    Args:
        returns: Learns the gaps, and the pauses that outlast nearly all of their kind.
    """

    def __init__(self, returns: ReturnTimeModel) -> None:
        self._returns = returns
        self._num_back, self._num_gone = 1.0, 1.0
        self._pauses: deque[tuple[Session, int]] = deque()
        # Length of pauses that ended before what began them was read (s), by session and turn.
        self._unexplained: OrderedDict[tuple[Session, int], float] = OrderedDict()

    @property
    def return_share(self) -> float:
        """Share of sessions that returned after a sibling or a fork had started (0 to 1)."""
        return self._num_back / (self._num_back + self._num_gone)

    def is_gone(self, session: Session, now_s: float) -> bool:
        """Whether the pause outlasts nearly all of its kind; false if none is known. Pure.

        The pause of an agent counts from when its sub-agents were last active.
        """
        if not self._returns.num_observed:
            return False
        away_s = now_s - session.paused_at_s
        if session.join is not None:
            away_s = min(away_s, now_s - session.join.active_s)
        returns, gap, speed = self._returns, session.gap, session.speed
        return away_s > returns.residual_quantile_s(gap, 0.0, _GONE_QUANTILE, speed=speed)

    def paused(self, session: Session) -> None:
        """Begin to follow a pause. Mutates."""
        self._pauses.append((session, session.num_turns))

    def returned(self, session: Session, now_s: float) -> None:
        """Learn from a pause that ends with the session's return. Mutates."""
        if session.state.is_paused:
            away_s = now_s - session.paused_at_s
            if session.awaits_end:
                self._await(session, away_s)
            else:
                self._returns.observe(session.gap, away_s, speed=session.speed)
        if session.has_moved_on:
            self._num_back += 1.0

    def explained(self, session: Session, num_turns: int, gap: GapFeatures) -> None:
        """Learn a pause whose kind became known after the session returned. Mutates."""
        away_s = self._unexplained.pop((session, num_turns), None)
        if away_s is not None:
            self._returns.observe(gap, away_s, speed=session.speed)

    def check(self, now_s: float) -> Iterator[Session]:
        """Check some pauses; yields sessions that had moved on and are gone. Mutates."""
        for _ in range(min(_CHECKED_AT_ONCE, len(self._pauses))):
            session, num_turns = self._pauses.popleft()
            if session.num_turns != num_turns or not session.state.is_paused:
                continue
            if not self.is_gone(session, now_s):
                self._pauses.append((session, num_turns))
                continue
            self._returns.observe(session.gap, now_s - session.paused_at_s, censored=True)
            if session.has_moved_on:
                self._num_gone += 1.0
                yield session

    def clear(self) -> None:
        """Forget all pauses; what was learned stays. Mutates."""
        self._pauses.clear()
        self._unexplained.clear()

    def _await(self, session: Session, away_s: float) -> None:
        """Keep a pause until its kind is known; past a limit the oldest counts as unknown."""
        self._unexplained[session, session.num_turns] = away_s
        if len(self._unexplained) > _MAX_UNEXPLAINED:
            (oldest, _), away_s = self._unexplained.popitem(last=False)
            self._returns.observe(UNKNOWN_GAP, away_s, speed=oldest.speed)
