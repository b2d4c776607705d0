"""What ended a recorded turn, in the words of the `holdfast_turn_end` hint."""

from __future__ import annotations

from holdfast.traces.record import Turn

__all__ = ["ending_of"]


def ending_of(turn: Turn) -> str | None:
    """The hint that tells what the recorded answer asked for; None where nobody knows. Pure."""
    if turn.ended_by == "unknown":
        return None
    is_named = turn.ended_by == "tool" and turn.tool_name
    return f"tool:{turn.tool_name}" if is_named else turn.ended_by
