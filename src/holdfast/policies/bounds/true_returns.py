"""When paused sessions really return: for bounds, which know the future."""

from __future__ import annotations

import math

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import PolicyContext

__all__ = ["TrueReturns"]


class TrueReturns:
    """Looks each pause up when it begins.

    Args:
        scene: A scene with an oracle.
        memory: Where return times are kept, by session; see `Policy.per_session`.
    """

    def __init__(self, context: PolicyContext, memory: dict[Session, float]) -> None:
        assert context.oracle is not None
        self._oracle = context.oracle
        self._context = context
        self._returns_at_s = memory

    def turn_ended(self, turn: Turn) -> None:
        """Look up when the session will be back. Mutates."""
        gap_s = self._oracle.gap_after_s(turn.request_id)
        self._returns_at_s[turn.session] = self._context.now_s + gap_s

    def left_s(self, session: Session) -> float:
        """Time until a paused session is back (s, >= 0; inf if it never is). Pure."""
        return max(self._returns_at_s.get(session, math.inf) - self._context.now_s, 0.0)

    def next_back(self) -> list[Session]:
        """Paused sessions that return, the next one first. Pure; O(sessions log sessions)."""
        at_s = self._returns_at_s
        back = [session for session in at_s if session.state.is_paused and at_s[session] < math.inf]
        return sorted(back, key=at_s.__getitem__)
