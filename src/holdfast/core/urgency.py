"""Urgency of sessions by explicit priority, where the operator enables priorities."""

from __future__ import annotations

from holdfast.core.session import Session

__all__ = ["LEAST_URGENT", "block_urgency", "urgency"]

LEAST_URGENT = -0.5


def urgency(session: Session) -> float:
    """Urgency by explicit priority: above -0.5 to below 0.5, 0 without any. Pure.

    Added to a priority class it orders sessions within the class, whatever their priorities are.
    """
    priority = session.priority or 0
    return -0.5 * priority / (1 + abs(priority))


def block_urgency(session: Session) -> float:
    """Urgency of a session's resident blocks. Pure.

    Blocks of a session without turn and reservation are the least urgent, or urgent sessions that
    never return would fill the cache.
    """
    if session.priority is None:
        return 0.0
    return urgency(session) if session.has_reservation or session.state.is_busy else LEAST_URGENT
