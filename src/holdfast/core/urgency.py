"""How urgent a session is, where the operator has asked for priorities."""

from __future__ import annotations

from holdfast.core.session import Session

__all__ = ["LEAST_URGENT", "claim_urgency", "urgency"]

LEAST_URGENT = -0.5


def urgency(session: Session) -> float:
    """Where a session stands by its priority: above -0.5 to below 0.5, 0 without any. Pure.

    Added to a class of worth it orders sessions within the class, whatever their priorities are.
    """
    priority = session.priority or 0
    return -0.5 * priority / (1 + abs(priority))


def claim_urgency(session: Session) -> float:
    """The urgency of what a session has in the cache: that of one with a place or a turn. Pure.

    Blocks of a session that has given up its place are the least urgent, or urgent sessions that
    never return would fill the cache.
    """
    if session.priority is None:
        return 0.0
    return urgency(session) if session.has_reservation or session.state.is_busy else LEAST_URGENT
