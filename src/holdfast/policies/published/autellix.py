"""Autellix: least attained service of programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.core.session import Session
from holdfast.core.turn import Admission, Budget, Turn
from holdfast.policies.base import Policy, PolicyContext, PolicySpec

__all__ = ["Autellix"]

_NUM_QUEUES = 8
_FIRST_QUEUE_S = 1.0
_QUEUE_FACTOR = 2.0
_STARVATION_RATIO = 4.0


class Autellix(Policy):
    """Programs that have had the least service run first, in discrete queues.

    A session's service is the time its turns have spent running. Queue k takes those served less
    than 2^k seconds. A turn whose session has waited four times as long as it was served moves to
    the first queue. Eviction is vLLM's.

    Source: Luo et al., Autellix, arXiv 2502.13965: PLAS, multi-level feedback queues,
    promotion when waited/served >= beta.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="autellix",
        summary="Least attained service of a session first (PLAS), in feedback queues.",
        source="Autellix, arXiv 2502.13965",
        differs="Queue bounds (8 queues, doubling from 1 s) and beta (4) are ours: unpublished; no "
        "preemption between turns.",
    )
    orders_requests = True

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._served_s: dict[Session, float] = self.per_session()
        self._waited_s: dict[Session, float] = self.per_session()
        self._started_s: dict[Turn, float] = {}

    def turn_started(self, turn: Turn) -> None:
        """The wait is over."""
        waited_s = self._waited_s.get(turn.session, 0.0)
        self._waited_s[turn.session] = waited_s + self.context.now_s - turn.arrived_s
        self._started_s[turn] = self.context.now_s

    def turn_ended(self, turn: Turn) -> None:
        """Add the service of this turn."""
        started_s = self._started_s.pop(turn, self.context.now_s)
        served_s = self._served_s.get(turn.session, 0.0)
        self._served_s[turn.session] = served_s + self.context.now_s - started_s

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """Offer all, the least served session's queue first."""
        return Admission(
            offers=sorted(
                waiting, key=lambda t: (t.priority, self._queue(t, room.now_s), t.sequence)
            )
        )

    def _queue(self, turn: Turn, now_s: float) -> int:
        served_s = self._served_s.get(turn.session, 0.0)
        waited_s = self._waited_s.get(turn.session, 0.0) + now_s - turn.arrived_s
        if waited_s >= _STARVATION_RATIO * served_s:
            return 0
        bound_s = _FIRST_QUEUE_S
        for queue in range(_NUM_QUEUES - 1):
            if served_s < bound_s:
                return queue
            bound_s *= _QUEUE_FACTOR
        return _NUM_QUEUES - 1
