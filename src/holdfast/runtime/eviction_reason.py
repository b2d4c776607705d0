"""Why blocks were worth least, as metrics and the decision log call it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState

__all__ = ["eviction_reason", "sessions_using"]


def sessions_using(node: Node[Any]) -> set[Session]:
    """All sessions whose chain contains a run. O(runs that continue it); pure."""
    return {session for node in node.subtree() for session in node.tails}


def eviction_reason(users: Set[Session] | None) -> str:
    """Why a run's blocks were evicted, by the sessions that use it. Pure.

    Args:
        users: See `sessions_using`; None for a run that has no owner any more.
    """
    if users is None:
        return "superseded"
    if len(users) != 1:
        return "prefix" if users else "closed"
    state: SessionState = next(iter(users)).state
    if state in (SessionState.CLOSED, SessionState.SUPERSEDED):
        return str(state.value)
    return "human" if state is SessionState.HUMAN_AWAY else "tool"
