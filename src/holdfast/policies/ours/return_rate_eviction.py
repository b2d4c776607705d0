"""Eviction by return rate: expected returns a second, summed over a node's users."""

from __future__ import annotations

from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.core.urgency import block_urgency
from holdfast.policies.base import (
    PolicyContext,
    PolicySpec,
    Priority,
    PriorityClass,
    SessionPriority,
    users_of,
)
from holdfast.policies.ours.recurring_agents import RecurringAgents

__all__ = ["ReturnRateEviction"]

_SHORTEST_S = 1e-6


class ReturnRateEviction(SessionPriority):
    """Evicts first the nodes whose sessions are expected back last.

    A kept block saves its restore cost when its session returns and occupies memory until then, so
    a block-second saves P(return) * restore cost / expected wait. The restore cost of a block is
    taken as the same at every depth. The expected wait is the time already waited plus the typical
    gap of such a pause in this session: gaps of agents are heavy-tailed, so the longer the pause,
    the longer its rest. P(return) falls as the pause outlasts the gaps of its kind that ended.

    Source: Belady, IBM Systems Journal 5(2), 1966, with the next use replaced by its expectation,
    as in CacheWise (arXiv 2606.16824).
    Differs: the expectation is learned online from gaps by kind, tool and argument class; a shared
    node has the sum over its users; only sessions are rescored, never blocks. A session may stand
    for the next call of its agent, see `RecurringAgents`. An agent that waits for sub-agents is
    expected when the last of them has ended, as their kind usually does. Explicit priorities come
    before return rates, as far as sessions have reservations.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="return-rate",
        summary="Evicts the nodes whose sessions are expected back last.",
        source="Belady 1966; CacheWise (arXiv 2606.16824)",
        differs="Returns are learned online; priorities of shared nodes add up.",
    )
    decays = True
    uses_predictions = True

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._agents = context.shared(RecurringAgents)

    def session_priority(self, session: Session) -> float:
        """Expected returns a second of a session (1/s, >= 0). Pure.

        While predictions are not trusted only recency counts. Before gaps are known, the time to
        recompute the session's blocks stands for a typical gap.
        """
        if session.state.is_ended:
            return 0.0
        context = self.context
        restore_s = context.restore_s(max(session.tail.end, 1))
        if session.state.is_busy:
            return 1.0 / max(restore_s, _SHORTEST_S)
        away_s = max(context.now_s - session.paused_at_s, 0.0)
        if session.result_at_s is not None:  # told, not predicted
            ready_s = max(context.now_s - session.idle_since_s, 0.0)
            return 1.0 / max(ready_s + session.result_lag_s, _SHORTEST_S)
        if not context.trusts_predictions:
            return 1.0 / max(away_s, _SHORTEST_S)
        share = context.return_share if session.has_moved_on else 1.0
        hint_s = session.expected_gap_s
        if hint_s is not None and away_s < hint_s:
            return share / max(hint_s - away_s, _SHORTEST_S)
        join_s = context.join_wait_s(session)
        if join_s is not None:
            return self._agents.use_rate(session, 1.0 / max(join_s, _SHORTEST_S))
        typical_s = context.returns.residual_quantile_s(
            session.gap, 0.0, 0.5, scale_s=restore_s, speed=session.speed
        )
        share *= context.returns.return_probability(session.gap, away_s, speed=session.speed)
        return self._agents.use_rate(session, share / max(away_s + typical_s, _SHORTEST_S))

    def priority(self, node: Node[Any]) -> Priority:
        """Class of the node and the sum of its users' last return rates (1/s). Pure."""
        total = 0.0
        priority_class: float = PriorityClass.CLOSED
        trusts_predictions = self.context.trusts_predictions
        for session in users_of(node):
            rate = session.retention_priority * self._agents.share(session, node)
            if trusts_predictions:
                rate = max(rate, self._agents.prefix_rate(session, node))
            total += rate
            if not session.state.is_ended:
                priority_class = max(priority_class, PriorityClass.LIVE + block_urgency(session))
            elif rate > 0.0:
                priority_class = max(priority_class, PriorityClass.LIVE)
        return priority_class, total
