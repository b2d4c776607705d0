"""A bound: Holdfast, told how much work each session has left."""

from __future__ import annotations

from typing import ClassVar

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.remaining_work import RemainingWork
from holdfast.policies.ours.holdfast import Holdfast

__all__ = ["ShortestRemaining"]


class ShortestRemaining(Holdfast):
    """Admits cold turns by least remaining work and knows the last turn.

    Sessions with little left end early, and their blocks become free. A session that has ended
    keeps none. All else is Holdfast's, its predicted gaps and its wait bound among it.

    Source: shortest remaining processing time, Schrage, Operations Research 16(3), 1968.
    Differs: only among cold turns, and within the wait bound; a session's work is its new prompt
    tokens and its answers, see `Oracle.work_left`.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="shortest-remaining",
        summary="Holdfast, told the remaining work of sessions: the least first among cold turns.",
        source="Schrage, Operations Research 16(3), 1968",
        differs="Only among cold turns, and within the wait bound.",
        needs=frozenset({Need.FUTURE}),
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._work = context.shared(RemainingWork)

    def session_priority(self, session: Session) -> float:
        """Expected returns a second (1/s); 0 if the session has ended."""
        if not session.state.is_busy and self._work.ends(session):
            return 0.0
        return super().session_priority(session)

    def rank(self, turn: Turn, now_s: float) -> tuple[float, ...]:
        """As Holdfast's, but by remaining work among cold turns."""
        rank = turn.rank(now_s)
        if turn.is_due(now_s) or turn.was_running or turn.is_warm:
            return rank
        return (*rank[:2], self._work.left(turn.session), turn.sequence)

    def retains(self, session: Session) -> bool:
        """Whether the session goes on."""
        return not self._work.ends(session)
