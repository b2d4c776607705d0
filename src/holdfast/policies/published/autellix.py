"""Autellix: least attained service of programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.core.events import Event, TurnEnded, TurnPreempted, TurnStarted
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySpec

__all__ = ["Autellix"]

_NUM_QUEUES = 8
_FIRST_QUEUE_S = 1.0
_QUEUE_FACTOR = 2.0
_STARVATION_RATIO = 4.0


class Autellix(AdmissionPolicy):
    """Runs programs with the least attained service first, in discrete queues.

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
        "preemption between turns; a promotion resets no counts.",
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._served_s: dict[Session, float] = context.per_session()
        self._waited_s: dict[Session, float] = context.per_session()
        self._started_s: dict[Turn, float] = {}
        self._waits_since_s: dict[Turn, float] = {}  # of preempted turns

    def observe(self, event: Event) -> None:
        """Add up how long sessions wait and are served. Mutates."""
        match event:
            case TurnStarted(time_s=time_s, turn=turn):
                since_s = self._waits_since_s.pop(turn, turn.arrived_s)
                waited_s = self._waited_s.get(turn.session, 0.0)
                self._waited_s[turn.session] = waited_s + time_s - since_s
                self._started_s[turn] = time_s
            case TurnPreempted(time_s=time_s, turn=turn):
                self._stop(turn, time_s)
                self._waits_since_s[turn] = time_s
            case TurnEnded(time_s=time_s, turn=turn):
                self._stop(turn, time_s)
                self._waits_since_s.pop(turn, None)

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit all, the queue of the least served sessions first."""
        now_s = budget.now_s
        order = sorted(waiting, key=lambda t: (t.priority, self._queue(t, now_s), t.sequence))
        return Admission(order)

    def _stop(self, turn: Turn, time_s: float) -> None:
        """Add the service that a turn has had since it started."""
        started_s = self._started_s.pop(turn, time_s)
        served_s = self._served_s.get(turn.session, 0.0)
        self._served_s[turn.session] = served_s + time_s - started_s

    def _queue(self, turn: Turn, now_s: float) -> int:
        served_s = self._served_s.get(turn.session, 0.0)
        waited_s = self._waited_s.get(turn.session, 0.0)
        waited_s += now_s - self._waits_since_s.get(turn, turn.arrived_s)
        if waited_s >= _STARVATION_RATIO * served_s:
            return 0
        bound_s = _FIRST_QUEUE_S
        for queue in range(_NUM_QUEUES - 1):
            if served_s < bound_s:
                return queue
            bound_s *= _QUEUE_FACTOR
        return _NUM_QUEUES - 1
