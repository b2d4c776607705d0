"""Autellix: least attained service of programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from holdfast.core.events import Event, TurnEnded, TurnPreempted, TurnStarted
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext, PolicySettings, PolicySpec

__all__ = ["Autellix", "AutellixSettings"]


class AutellixSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `Autellix`; the paper publishes none of them, so all are ours.

    Attributes:
        num_queues: Feedback queues (count, >= 1).
        first_queue_s: Service below which a session is in the first queue (s, > 0).
        queue_factor: Ratio of each queue's upper bound to that of the one before (> 1).
        starvation_ratio: Waited over served time at which a turn is promoted, beta (> 0).
    """

    num_queues: Annotated[int, Meta(ge=1)] = 8
    first_queue_s: Annotated[float, Meta(gt=0)] = 1.0
    queue_factor: Annotated[float, Meta(gt=1)] = 2.0
    starvation_ratio: Annotated[float, Meta(gt=0)] = 4.0


class Autellix(AdmissionPolicy):
    """Runs programs with the least attained service first, in discrete queues.

    A session's service is the time its turns have spent running. Queue k takes those served less
    than 2^k seconds. A turn whose session has waited four times as long as it was served moves to
    the first queue, and that wait no longer counts. Eviction is vLLM's.

    Source: Luo et al., Autellix, arXiv 2502.13965: PLAS, multi-level feedback queues,
    promotion when waited/served >= beta.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="autellix",
        summary="Least attained service of a session first (PLAS), in feedback queues.",
        source="Autellix, arXiv 2502.13965",
        differs="Queue bounds (8 queues, doubling from 1 s) and beta (4) are ours: unpublished; a "
        "turn keeps the queue of its start, without quanta and preemption between turns.",
        settings=AutellixSettings,
    )
    settings: AutellixSettings

    def __init__(self, context: PolicyContext, settings: AutellixSettings) -> None:
        super().__init__(context, settings)
        self._served_s: dict[Session, float] = context.per_session()
        self._waited_s: dict[Session, float] = context.per_session()
        self._started_s: dict[Turn, float] = {}
        self._waits_since_s: dict[Turn, float] = {}  # of preempted turns

    def observe(self, event: Event) -> None:
        """Add up how long sessions wait and are served. Mutates."""
        match event:
            case TurnStarted(time_s=time_s, turn=turn):
                if not self._starves(turn, time_s):
                    self._waited_s[turn.session] = self._wait_s(turn, time_s)
                self._waits_since_s.pop(turn, None)
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
        if self._starves(turn, now_s):
            return 0
        bound_s = self.settings.first_queue_s
        for queue in range(self.settings.num_queues - 1):
            if served_s < bound_s:
                return queue
            bound_s *= self.settings.queue_factor
        return self.settings.num_queues - 1

    def _starves(self, turn: Turn, now_s: float) -> bool:
        """Whether the session has waited for too long, measured by its service."""
        served_s = self._served_s.get(turn.session, 0.0)
        return self._wait_s(turn, now_s) >= self.settings.starvation_ratio * served_s > 0.0

    def _wait_s(self, turn: Turn, now_s: float) -> float:
        """What the session's turns have waited, this one included (s)."""
        since_s = self._waits_since_s.get(turn, turn.arrived_s)
        return self._waited_s.get(turn.session, 0.0) + now_s - since_s
