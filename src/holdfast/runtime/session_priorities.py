"""Retention priorities of sessions, kept up to date, and the order of their nodes with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.policies.base import EvictionPolicy, PolicyContext, Priority, users_of
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.rescore_schedule import RescoreSchedule
from holdfast.runtime.session_blocks import SessionBlocks

__all__ = ["SessionPriorities"]


class SessionPriorities:
    """Rescores sessions when what their priority depends on has changed.

    Args:
        eviction: Scores them; may be replaced.
        context: Knows the time.
        idle: Sessions that may return.
        blocks: Which path each session has.
    """

    def __init__(
        self,
        eviction: EvictionPolicy,
        context: PolicyContext,
        idle: IdleSessions,
        blocks: SessionBlocks,
    ) -> None:
        self.eviction = eviction
        self._context = context
        self._idle = idle
        self._blocks = blocks
        self._schedule = RescoreSchedule()

    def score(self, session: Session) -> None:
        """Score a session whose nodes are ranked anew in any case. Mutates."""
        session.retention_priority = self.eviction.session_priority(session)
        self._schedule.scored(session, self._context.now_s)

    def rescore(self, session: Session) -> None:
        """Score a session and rank its nodes anew. Mutates."""
        self.score(session)
        self._blocks.rescore(session)

    def rescore_all(self, sessions: Iterable[Session]) -> None:
        """Score idle sessions and rank their nodes anew. Mutates."""
        for session in list(sessions):
            if session in self._idle and not self._is_bare(session):
                self.rescore(session)

    def rescore_stale(self, num_sessions: int) -> None:
        """Rescore at most so many idle sessions with stale priorities. Mutates."""
        if self.eviction.decays:
            self.rescore_all(self._schedule.due(self._context.now_s, num_sessions))

    def priority(self, node: Node[Any]) -> Priority:
        """Priority of a node's free blocks now."""
        if self.eviction.decays:
            now_s = self._context.now_s
            for session in users_of(node):
                if now_s >= session.stale_at_s:
                    self.score(session)
        return self.eviction.priority(node)

    def forget(self, session: Session) -> None:
        """Stop rescoring a session. Mutates."""
        self._schedule.forget(session)

    def clear(self) -> None:
        """Stop rescoring all sessions. Mutates."""
        self._schedule.clear()

    def _is_bare(self, session: Session) -> bool:
        """Whether an idle session has no resident block left; it is then set apart."""
        if session.tail.free_blocks.num_blocks or session.prompt_tail.free_blocks.num_blocks:
            return False
        self._idle.lose_blocks(session)
        self._blocks.release(session)
        self.score(session)
        return True
