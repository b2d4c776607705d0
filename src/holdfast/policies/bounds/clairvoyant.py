"""A bound: the best of several rules that know the future."""

from __future__ import annotations

from typing import ClassVar

from holdfast.core.session import Session
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.true_returns import TrueReturns
from holdfast.policies.ours.holdfast import Holdfast

__all__ = ["Clairvoyant"]

_SHORTEST_S = 1e-6


class Clairvoyant(Holdfast):
    """Knows when each paused session returns and whether it does.

    Within Holdfast's rules it bounds what better prediction could gain: the furthest true return is
    evicted first, reservations are released by comparing true pauses with the cost of
    recomputation. What the simulator reports under this name is the best mean of a search over
    rules and settings: this one with two wait bounds, Holdfast's own predictions,
    `shortest-remaining`, and `true-reservations` in two orders, without a wait bound; where other
    policies run beside it, they are rules of the search as well. It does not bound every
    conceivable policy: return times depend on what is admitted, so no order of eviction is optimal
    by itself. `sim/llm_time_bound.py` does.

    Source: Belady, IBM Systems Journal 5(2), 1966.
    Differs: victims are nodes of one prefix tree rather than single blocks; a shared node has the
    sum over its users, in which the soonest weighs most.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="clairvoyant",
        summary="The best of several rules that know the future: a bound to compare with.",
        source="Belady, IBM Systems Journal 5(2), 1966",
        differs="Evicts whole nodes; also decides which turns are admitted.",
        needs=frozenset({Need.FUTURE}),
        variants=(
            {"max_wait_ratio": 2.0},
            {"max_wait_ratio": 16.0},
            # Knowing the future does not forbid to go by what is likely.
            {"policy": "holdfast", "max_wait_ratio": 2.0},
            {"policy": "shortest-remaining", "max_wait_ratio": 2.0},
            {"policy": "true-reservations"},
            {"policy": "true-reservations:order=remaining"},
        ),
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._true_returns = context.shared(TrueReturns)

    def session_priority(self, session: Session) -> float:
        """True returns a second (1/s); 0 if there is none."""
        if session.state.is_ended:
            return 0.0
        if session.state.is_busy:
            return super().session_priority(session)
        return 1.0 / max(self._true_returns.left_s(session), _SHORTEST_S)

    def idle_s(self, session: Session) -> float:
        """True time until it returns (s); inf if it never does."""
        return self._true_returns.left_s(session)
