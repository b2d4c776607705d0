"""Counts the values that a written format cannot hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields

from holdfast.traces.record import Session, SessionEvent, ToolSpan, Turn

__all__ = ["Kept", "Losses"]

Losses = Counter[str]
"""Number of sessions, turns or tool calls with a lost value, by `Type.field`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The fields that a format keeps; values of all others are counted as lost.

    Attributes:
        session: Fields of `Session`.
        turn: Fields of `Turn`.
        tool: Fields of `ToolSpan`; needed only if turns keep `tools`.
    """

    session: AbstractSet[str]
    turn: AbstractSet[str]
    tool: AbstractSet[str] = field(default_factory=frozenset)

    def count(self, session: Session, losses: Losses) -> None:
        """Add a session's lost values to `losses`."""
        _count(session, self.session | {"source"}, losses)
        for turn in session.turns:
            _count(turn, self.turn, losses)
            if "tools" in self.turn:
                for tool in turn.tools:
                    _count(tool, self.tool, losses)


def _count(
    item: Session | Turn | ToolSpan | SessionEvent, kept: AbstractSet[str], losses: Losses
) -> None:
    for one in fields(item):
        if one.name not in kept and getattr(item, one.name) != one.default:
            losses[f"{type(item).__name__}.{one.name}"] += 1
