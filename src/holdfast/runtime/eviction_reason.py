"""Why a node was evicted first, as metrics and the decision log name it."""

from __future__ import annotations

from typing import Any, NamedTuple

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState

__all__ = ["Victim", "sessions_using", "victim_of"]


class Victim(NamedTuple):
    """What is known of a node whose blocks are evicted.

    Attributes:
        reason: Why it was first: what its session does, "prefix" if several use it, "closed" if
            none does any more, "superseded" without an owner.
        session: The only session that uses it; None if several do, or none.
        is_path: Whether its blocks are consecutive ones of a path.
    """

    reason: str
    session: Session | None
    is_path: bool


_UNOWNED = Victim("superseded", None, is_path=False)
_UNUSED = Victim("closed", None, is_path=True)
_SHARED = Victim("prefix", None, is_path=True)


def victim_of(node: Node[Any] | None) -> Victim:
    """Why a node's blocks are evicted, and whose they were. Pure.

    O(nodes of its subtree up to the second session that uses it).

    Args:
        node: The node; None stands for blocks without an owner.
    """
    if node is None:
        return _UNOWNED
    session: Session | None = None
    for part in node.subtree() if node.children else (node,):
        for user in part.tails:
            if session is not None:
                return _SHARED
            session = user
    return _UNUSED if session is None else Victim(_reason(session.state), session, is_path=True)


def sessions_using(node: Node[Any]) -> set[Session]:
    """All sessions whose path contains a node. O(nodes of its subtree); pure."""
    return {session for part in node.subtree() for session in part.tails}


def _reason(state: SessionState) -> str:
    if state.is_ended:
        return str(state.value)
    return "human" if state is SessionState.HUMAN_AWAY else "tool"
