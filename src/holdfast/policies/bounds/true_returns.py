"""True return times of paused sessions, for bounds, which know the future."""

from __future__ import annotations

import math

from holdfast.core.events import Event, TurnEnded
from holdfast.core.session import Session
from holdfast.policies.base import Observer, PolicyContext

__all__ = ["TrueReturns"]


class TrueReturns(Observer):
    """Asks the oracle for the length of each pause when it begins."""

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        assert context.oracle is not None
        self._oracle = context.oracle
        self._returns_at_s: dict[Session, float] = context.per_session()

    def observe(self, event: Event) -> None:
        """Look up when the session returns. Mutates."""
        match event:
            case TurnEnded(turn=turn):
                gap_s = self._oracle.gap_after_s(turn.request_id)
                self._returns_at_s[turn.session] = self.context.now_s + gap_s

    def left_s(self, session: Session) -> float:
        """Time until a paused session returns (s, >= 0; inf if it never does). Pure."""
        return max(self._returns_at_s.get(session, math.inf) - self.context.now_s, 0.0)

    def next_back(self) -> list[Session]:
        """Paused sessions that return, the next one first. Pure; O(sessions log sessions)."""
        at_s = self._returns_at_s
        back = [session for session in at_s if session.state.is_paused and at_s[session] < math.inf]
        return sorted(back, key=at_s.__getitem__)
