"""A bound: Holdfast's rules with true return times in place of predicted ones."""

from __future__ import annotations

from typing import ClassVar

from holdfast.core.session import Session, SessionState
from holdfast.core.turn import Turn
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.true_returns import TrueReturns
from holdfast.policies.ours.holdfast import Holdfast

__all__ = ["Clairvoyant"]

_SHORTEST_S = 1e-6
_ENDED = (SessionState.CLOSED, SessionState.SUPERSEDED)


class Clairvoyant(Holdfast):
    """Knows when each paused session returns and whether it does.

    Bounds what better prediction could gain within Holdfast's rules: furthest true return first
    among victims, places given up by comparing true absences with the cost of recomputation. The
    simulator also searches over how long a turn may be overtaken and over whether to use the truth
    or what Holdfast goes by, and reports the best mean. It does not
    bound every conceivable policy: return times depend on what is let in, so no order of eviction
    is optimal by itself, and an order of requests that knows how long each session still runs
    could finish more sessions early.

    Source: Belady, IBM Systems Journal 5(2), 1966.
    Differs: victims are runs of one prefix tree rather than single blocks; a shared run is worth
    the sum over its users, in which the soonest weighs most.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="clairvoyant",
        summary="Holdfast's rules with true return times: a bound on what prediction can gain.",
        source="Belady, IBM Systems Journal 5(2), 1966",
        differs="Whole runs of blocks; also decides whom to let in.",
        needs=frozenset({Need.FUTURE}),
    )
    variants = (
        {"max_wait_ratio": 2.0},
        {"max_wait_ratio": 16.0},
        # Whoever knows the future may still go by what is likely.
        {"policy": "holdfast", "max_wait_ratio": 2.0},
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._true_returns = TrueReturns(context, self.per_session())

    def turn_ended(self, turn: Turn) -> None:
        """Look up when the session will be back."""
        self._true_returns.turn_ended(turn)

    def score(self, session: Session) -> float:
        """True returns a second (1/s); 0 if there is none."""
        if session.state in _ENDED:
            return 0.0
        if session.state.is_busy:
            return super().score(session)
        return 1.0 / max(self._true_returns.left_s(session), _SHORTEST_S)

    def away_s(self, session: Session) -> float:
        """True time until it returns (s); inf if it never does."""
        return self._true_returns.left_s(session)
