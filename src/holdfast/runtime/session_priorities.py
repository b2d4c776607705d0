"""Retention priorities of sessions and the order of their nodes, kept up to date."""

from __future__ import annotations

import math
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session
from holdfast.core.urgency import urgency
from holdfast.errors import PolicyError
from holdfast.policies.base import EvictionPolicy, PolicyContext, Priority
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.rescore_schedule import RescoreSchedule
from holdfast.runtime.retention import Retention
from holdfast.runtime.session_blocks import SessionBlocks

__all__ = ["SessionPriorities"]


class SessionPriorities:
    """Rescores, once an engine step, the sessions whose priority may have changed.

    Args:
        eviction: Scores them; may be replaced.
        context: Knows the time.
        idle: Sessions that may return.
        blocks: Which path each session has.

    Attributes:
        eviction: See the argument.
        retention: What clients ask for their sessions' blocks; set once it is known.
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
        self._dirty: dict[Session, None] = {}
        self.retention: Retention | None = None

    def mark(self, session: Session) -> None:
        """Put a session into the dirty set: its priority may have changed. Mutates; O(1)."""
        self._dirty[session] = None

    def rescore_dirty(self, num_stale: int) -> None:
        """Rescore the dirty set and at most `num_stale` stale sessions. Mutates."""
        dirty, self._dirty = self._dirty, {}
        for session in dirty:
            self._rescore(session)
        if self.eviction.decays and num_stale:
            for session in list(self._schedule.due(self._context.now_s, num_stale)):
                self._rescore(session)

    def priority(self, node: Node[Any]) -> Priority:
        """Priority of a node's free blocks, as of the last rescore of its users. Pure."""
        priority = self.eviction.priority(node)
        return priority if self.retention is None else self.retention.adjusted(node, priority)

    def stored(self, session: Session) -> Priority | None:
        """Priority of a session's stored blocks; None while it is in the engine. Pure."""
        if session.state.is_busy:
            return None
        if not session.state.is_paused:
            return 0.0, 0.0
        return 1.0 + urgency(session), self.eviction.session_priority(session)

    def forget(self, session: Session) -> None:
        """Stop rescoring a session. Mutates."""
        self._dirty.pop(session, None)
        self._schedule.forget(session)

    def clear(self) -> None:
        """Stop rescoring all sessions. Mutates."""
        self._dirty.clear()
        self._schedule.clear()

    def _rescore(self, session: Session) -> None:
        """Score a session and rank its nodes; set it apart if it has no resident block."""
        if session.state.is_ended:
            return
        priority = self.eviction.session_priority(session)
        if math.isnan(priority):
            raise PolicyError(f"policy {self.eviction.spec.name!r} gives NaN for a session")
        session.retention_priority = priority
        self._schedule.scored(session, self._context.now_s)
        if session not in self._idle or _has_blocks(session):
            self._blocks.rescore(session)
            return
        self._idle.lose_blocks(session)
        self._blocks.release(session)
        if self.retention is not None:
            self.retention.drop(session)


def _has_blocks(session: Session) -> bool:
    """Whether an idle session has resident blocks."""
    tail, prompt_tail = session.tail, session.prompt_tail
    return bool(tail.free_blocks.num_blocks or prompt_tail.free_blocks.num_blocks)
