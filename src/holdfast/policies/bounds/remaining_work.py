"""What sessions still have to do, for bounds, which know the future."""

from __future__ import annotations

import math

from holdfast.core.events import Event, TurnArrived
from holdfast.core.session import Session
from holdfast.policies.base import Observer, PolicyContext

__all__ = ["RemainingWork"]


class RemainingWork(Observer):
    """Asks the oracle what follows each turn when it arrives."""

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        assert context.oracle is not None
        self._oracle = context.oracle
        self._request_ids: dict[Session, str] = context.per_session()

    def observe(self, event: Event) -> None:
        """Note the session's turn. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._request_ids[turn.session] = turn.request_id

    def left(self, session: Session) -> float:
        """Work of a session from its last turn on, see `Oracle.work_left`. Pure."""
        return self._oracle.work_left(self._request_ids[session])

    def ends(self, session: Session) -> bool:
        """Whether the session's last turn so far is its last of all. Pure."""
        return math.isinf(self._oracle.gap_after_s(self._request_ids[session]))
