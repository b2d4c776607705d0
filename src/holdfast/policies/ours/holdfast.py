"""Holdfast's own policy: worth by expected return, admission by working set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.core.turn import Admission, Budget, Turn
from holdfast.policies.base import Policy, PolicyContext, PolicySpec, Priority
from holdfast.policies.ours.recurring_agents import RecurringAgents
from holdfast.policies.ours.return_rate_eviction import ReturnRateEviction
from holdfast.policies.ours.working_set_admission import WorkingSetAdmission

__all__ = ["Holdfast"]


class Holdfast(Policy):
    """Evict by worth, admit by working set; see `ReturnRateEviction` and `WorkingSetAdmission`."""

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="holdfast",
        summary="Evicts by the expected return of the sessions behind each run of blocks; lets in "
        "what fits beside the sessions that hold a place, with a bound on being passed over.",
        source="Belady 1966; Denning 1968; CacheWise (arXiv 2606.16824)",
        differs="Returns are learned online; worths of shared runs add up; places and a bound on "
        "waiting decide who runs.",
    )
    orders_requests = True
    ages = True

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._callers = RecurringAgents(context, self.per_session())
        self._priority = ReturnRateEviction(context, self._callers)
        self._admission = WorkingSetAdmission()

    def turn_arrived(self, turn: Turn) -> None:
        """Take note of the agent that begins, or goes on."""
        self._callers.turn_arrived(turn.session)

    def session_forgotten(self, session: Session) -> None:
        """Learn whether it was ever continued."""
        self._callers.forgotten(session)
        super().session_forgotten(session)

    def score(self, session: Session) -> float:
        """Expected returns a second (1/s)."""
        return self._priority.rate(session)

    def priority(self, node: Node[Any]) -> Priority:
        """Class of the run and the sum of its users' rates."""
        return self._priority.priority(node)

    def coming(self) -> Iterable[Node[Any]]:
        """Ends of the prefixes whose agents' regular calls are due next, soonest first."""
        return self._callers.coming() if self.context.trusts_predictions else ()

    def retains(self, session: Session) -> bool:
        """Whoever may go on keeps its place until somebody needs it more."""
        return self._callers.goes_on(session)

    def decide(self, waiting: Sequence[Turn], room: Budget) -> Admission:
        """See `WorkingSetAdmission`."""
        return self._admission.decide(waiting, room)
