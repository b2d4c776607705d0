"""SessionPriorities of sessions, kept up to date, and with them the ranks of their blocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.policies.base import Policy, PolicyContext, Priority, users_of
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.rescore_schedule import RescoreSchedule
from holdfast.runtime.session_blocks import SessionBlocks

__all__ = ["SessionPriorities"]


class SessionPriorities:
    """SessionPriorities sessions by a policy, anew whenever what a score rests on has changed.

    Args:
        policy: SessionPriorities them; may be replaced.
        scene: Knows the time.
        away: Sessions that may come back.
        chains: Which chain each session has.
    """

    def __init__(
        self, policy: Policy, context: PolicyContext, away: IdleSessions, chains: SessionBlocks
    ) -> None:
        self.policy = policy
        self._context = context
        self._away = away
        self._chains = chains
        self._freshness = RescoreSchedule()

    def rate(self, session: Session) -> None:
        """Score a session whose blocks are ranked anew in any case. Mutates."""
        session.rate = self.policy.score(session)
        self._freshness.rated(session, self._context.now_s)

    def renew(self, session: Session) -> None:
        """Score a session and rank its blocks anew. Mutates."""
        self.rate(session)
        self._chains.rescore(session)

    def renew_all(self, sessions: Iterable[Session]) -> None:
        """Score paused sessions and rank their blocks anew. Mutates."""
        for session in list(sessions):
            if session in self._away and not self._is_bare(session):
                self.renew(session)

    def refresh(self, num_sessions: int) -> None:
        """Bring at most so many paused sessions with stale scores up to date. Mutates."""
        if self.policy.ages:
            self.renew_all(self._freshness.due(self._context.now_s, num_sessions))

    def priority(self, node: Node[Any]) -> Priority:
        """Class and worth of a run's free blocks now."""
        if self.policy.ages:
            now_s = self._context.now_s
            for session in users_of(node):
                if now_s >= session.stale_at_s:
                    self.rate(session)
        return self.policy.priority(node)

    def forget(self, session: Session) -> None:
        """The session is not of interest any more. Mutates."""
        self._freshness.forget(session)

    def clear(self) -> None:
        """Forget all sessions. Mutates."""
        self._freshness.clear()

    def _is_bare(self, session: Session) -> bool:
        """Whether a paused session has no block left to keep; it then counts as away no more."""
        if session.tail.free_blocks.num_blocks or session.prompt_tail.free_blocks.num_blocks:
            return False
        self._away.bare(session)
        self._chains.release(session)
        self.rate(session)
        return True
