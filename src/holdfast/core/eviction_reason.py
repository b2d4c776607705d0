"""Why blocks were worth least, as metrics and the decision log call it."""

from __future__ import annotations

from typing import Any

from holdfast.core.chains import Segment
from holdfast.core.sessions import SessionState

__all__ = ["eviction_reason"]


def eviction_reason(segment: Segment[Any] | None) -> str:
    """Who used a run whose blocks were evicted; None is a run that nobody owns any more. Pure."""
    if segment is None:
        return "superseded"
    users = {session for run in segment.subtree() for session in run.tails}
    if len(users) != 1:
        return "prefix" if users else "closed"
    state: SessionState = users.pop().state
    if state in (SessionState.CLOSED, SessionState.SUPERSEDED):
        return str(state.value)
    return "human" if state is SessionState.HUMAN_AWAY else "tool"
