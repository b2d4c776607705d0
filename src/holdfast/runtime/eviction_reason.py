"""Why a node was evicted first, as metrics and the decision log name it."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState

__all__ = ["eviction_reason", "sessions_using"]


def sessions_using(node: Node[Any]) -> set[Session]:
    """All sessions whose path contains a node. O(nodes of its subtree); pure."""
    return {session for part in node.subtree() for session in part.tails}


def eviction_reason(users: Set[Session] | None) -> str:
    """Why a node's blocks were evicted, by the sessions that use it. Pure.

    Args:
        users: See `sessions_using`; None for a node without an owner.
    """
    if users is None:
        return "superseded"
    if len(users) != 1:
        return "prefix" if users else "closed"
    state: SessionState = next(iter(users)).state
    if state.is_ended:
        return str(state.value)
    return "human" if state is SessionState.HUMAN_AWAY else "tool"
