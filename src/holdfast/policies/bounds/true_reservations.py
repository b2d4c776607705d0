"""A bound: reservations for pauses that are truly short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission, Budget
from holdfast.policies.base import (
    AdmissionPolicy,
    Need,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    SessionPriority,
)
from holdfast.policies.bounds.remaining_work import RemainingWork
from holdfast.policies.bounds.true_returns import TrueReturns

__all__ = ["TrueReservations", "TrueReservationsSettings"]


class TrueReservationsSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `TrueReservations`.

    Attributes:
        hold_s: Longest pause that gets a reservation (s).
        order: By fewest missing blocks; or warm turns, then cold ones, each by the least remaining
            work of their session.
    """

    hold_s: Annotated[float, Meta(ge=0.0)] = 60.0
    order: Literal["missing", "remaining"] = "missing"


class TrueReservations(SessionPriority, AdmissionPolicy):
    """Reserves the blocks of sessions whose true pause is short.

    Admits turns that fit beside reservations; a turn that does not fit is passed by others, without
    a wait bound. Evicts the longest idle session first. While nothing runs the first turn takes
    what reservations it needs, the last to return first.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="true-reservations",
        summary="Reserves the blocks of sessions whose true pause is short; admits what fits, by "
        "missing blocks or by remaining work.",
        source="a rule of ours, for the search that `clairvoyant` reports the best of",
        needs=frozenset({Need.FUTURE}),
        settings=TrueReservationsSettings,
    )
    settings: TrueReservationsSettings

    def __init__(self, context: PolicyContext, settings: TrueReservationsSettings) -> None:
        super().__init__(context, settings)
        self._true_returns = context.shared(TrueReturns)
        self._work = context.shared(RemainingWork)

    def session_priority(self, session: Session) -> float:
        """When the session paused (s), now while it is busy, 0 if it ended."""
        if session.state.is_ended:
            return 0.0
        if session.state.is_busy:
            return self.context.now_s
        return 0.0 if self._work.ends(session) else session.paused_at_s

    def admit(self, waiting: Sequence[Turn], budget: Budget) -> Admission:
        """Admit what fits, preempted turns first. Pure."""
        order = sorted(waiting, key=self._rank)
        blocks = budget.blocks
        admitted: list[Turn] = []
        for turn in order:
            if len(admitted) < budget.slots and turn.demand_blocks <= blocks:
                blocks -= turn.demand_blocks
                admitted.append(turn)
        if admitted or budget.num_running:
            return Admission(admitted, lacking=[turn for turn in order if turn not in admitted])
        first = order[:1]
        return Admission(first, _releases(first, budget))

    def retains(self, session: Session) -> bool:
        """Whether the session truly returns soon, while it is busy at all."""
        if self._work.ends(session):
            return False
        return session.state.is_busy or self.idle_s(session) <= self.settings.hold_s

    def idle_s(self, session: Session) -> float:
        """True time until the session returns (s)."""
        return self._true_returns.left_s(session)

    def _rank(self, turn: Turn) -> tuple[float, ...]:
        if self.settings.order == "missing":
            return not turn.was_running, turn.missing_blocks, turn.sequence
        left = self._work.left(turn.session)
        return not turn.was_running, not turn.is_warm, left, turn.sequence


def _releases(turns: Sequence[Turn], budget: Budget) -> list[Session]:
    """Reservations that turns need, or all of them."""
    wanted = sum(turn.demand_blocks for turn in turns) - budget.blocks
    released: list[Session] = []
    for session in budget.reservations():
        if wanted <= 0:
            break
        wanted -= budget.freed_by(session)
        released.append(session)
    return released
