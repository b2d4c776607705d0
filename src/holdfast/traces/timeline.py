"""Computes start and end times of the turns of recorded sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.traces.record import Session

__all__ = ["Span", "family_timeline"]


@dataclass(frozen=True, slots=True)
class Span:
    """Start and end of one turn, from the start of the recording.

    Attributes:
        start_s: Time of the request.
        end_s: End of the answer; equals `start_s` where the latency is not recorded.
    """

    start_s: float
    end_s: float


def family_timeline(family: Sequence[Session]) -> dict[str, tuple[Span, ...]]:
    """The spans of each session's turns, by session id; pure.

    A main agent starts at its recorded arrival, or at 0. A sub-agent starts at the end of the
    answer that called it, or with its parent where that turn is unknown.

    Args:
        family: A main agent's session, then those of its sub-agents, parents before children.
    """
    timeline: dict[str, tuple[Span, ...]] = {}
    for session in family:
        now_s = _begin_s(session, timeline.get(session.parent_id or "", ()))
        spans: list[Span] = []
        for turn in session.turns:
            start_s = now_s + turn.gap_s
            now_s = start_s + (turn.latency_s or 0.0)
            spans.append(Span(start_s, now_s))
        timeline[session.session_id] = tuple(spans)
    return timeline


def _begin_s(session: Session, parent: Sequence[Span]) -> float:
    if session.start_s is not None:
        return session.start_s
    if not parent:
        return 0.0
    if session.parent_turn is None or session.parent_turn >= len(parent):
        return parent[0].start_s
    return parent[session.parent_turn].end_s
