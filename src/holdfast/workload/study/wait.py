"""What a session waits for once a turn has ended."""

from __future__ import annotations

from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.traces.record import Turn

__all__ = ["END", "START", "wait_kind", "wait_name"]

START = "start"
"""Stands before a session's first turn."""

END = "end"
"""Stands behind a session's last turn."""


def wait_kind(turn: Turn) -> str:
    """The kind of tool, `tool` where it is not known, `human` or `unknown`. Pure."""
    if turn.ended_by == "tool" and turn.tool_name:
        return tool_kind(turn.tool_name)
    return turn.ended_by


def wait_name(turn: Turn) -> str:
    """The tool with the head of its command, as far as known; else as `wait_kind`. Pure."""
    if turn.ended_by == "tool" and turn.tool_name:
        return f"{turn.tool_name} {turn.tool_command or ''}".rstrip()
    return turn.ended_by
