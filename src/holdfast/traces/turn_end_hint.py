"""The end of a recorded turn as a `holdfast_turn_end` hint."""

from __future__ import annotations

from holdfast.traces.record import Turn

__all__ = ["turn_end_hint"]


def turn_end_hint(turn: Turn) -> str | None:
    """The hint for the recorded end of a turn; None where that is unknown. Pure."""
    if turn.ended_by == "unknown":
        return None
    if turn.ended_by != "tool" or not turn.tool_name:
        return turn.ended_by
    return f"tool:{turn.tool_name} {turn.tool_command or ''}".rstrip()
