"""Priority of keeping a run of blocks.

Expected returns a second, summed over all who would lose it.
"""

from __future__ import annotations

from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.core.urgency import claim_urgency
from holdfast.policies.base import PolicyContext, Priority, PriorityClass, users_of
from holdfast.policies.ours.recurring_agents import RecurringAgents

__all__ = ["ReturnRateEviction"]

_SHORTEST_S = 1e-6
_ENDED = (SessionState.CLOSED, SessionState.SUPERSEDED)


class ReturnRateEviction:
    """Rank runs by how soon their sessions are expected back.

    Keeping a block saves its restore cost once its session returns and occupies memory until then,
    so per block-second it is worth P(return) * restore cost / expected wait. The restore cost a
    block is taken as the same at every depth. The expected wait is the time already waited plus the
    typical gap of such a pause in this session: the longer away, the longer still, as gaps of
    agents are heavy-tailed. P(return) falls as the pause outlasts the gaps of its kind that ended.

    Source: Belady, IBM Systems Journal 5(2), 1966, with the next use replaced by its expectation,
    as in CacheWise (arXiv 2606.16824).
    Differs: the expectation is learned online from gaps by kind, tool and argument class; shared
    runs are worth the sum over their users; only sessions are rescored, never blocks. A session
    may stand for the next call of its agent, too; see `RecurringAgents`. Explicit priorities come
    before worth, as far as sessions hold places.
    """

    def __init__(self, context: PolicyContext, callers: RecurringAgents) -> None:
        self._context = context
        self._callers = callers

    def rate(self, session: Session) -> float:
        """Expected returns a second of a session (1/s, >= 0). Pure.

        Where predictions are not trusted only recency counts. Before gaps are known, the time to
        recompute what the session holds says what is soon.
        """
        if session.state in _ENDED:
            return 0.0
        context = self._context
        restore_s = context.restore_s(max(session.tail.end, 1))
        if session.state.is_busy:
            return 1.0 / max(restore_s, _SHORTEST_S)
        away_s = max(context.now_s - session.paused_at_s, 0.0)
        if not context.trusts_predictions:
            return 1.0 / max(away_s, _SHORTEST_S)
        share = context.return_share if session.has_moved_on else 1.0
        hint_s = session.expected_gap_s
        if hint_s is not None and away_s < hint_s:
            return share / max(hint_s - away_s, _SHORTEST_S)
        typical_s = context.returns.residual_quantile_s(
            session.gap, 0.0, 0.5, scale_s=restore_s, speed=session.speed
        )
        share *= context.returns.return_probability(session.gap, away_s, speed=session.speed)
        return self._callers.rate(session, share / max(away_s + typical_s, _SHORTEST_S))

    def priority(self, node: Node[Any]) -> Priority:
        """Class of the run and the sum of its users' last computed rates (1/s). Pure."""
        total = 0.0
        priority_class: float = PriorityClass.CLOSED
        for session in users_of(node):
            total += session.rate * self._callers.share(session, node)
            if session.state not in _ENDED:
                priority_class = max(priority_class, PriorityClass.LIVE + claim_urgency(session))
        return priority_class, total
