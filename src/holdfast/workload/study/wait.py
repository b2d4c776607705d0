"""Classifies the wait after a turn by its tool."""

from __future__ import annotations

from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.traces.record import Turn

__all__ = ["END", "START", "wait_kind", "wait_name"]

START = "start"
"""Pseudo-step before a session's first turn."""

END = "end"
"""Pseudo-step after a session's last turn."""


def wait_kind(turn: Turn) -> str:
    """The tool kind, `tool` for an unknown tool, `human` or `unknown`. Pure."""
    if turn.ended_by == "tool" and turn.tool_name:
        return tool_kind(turn.tool_name)
    return turn.ended_by


def wait_name(turn: Turn) -> str:
    """The tool and the head of its command, if known; otherwise `wait_kind`. Pure."""
    if turn.ended_by == "tool" and turn.tool_name:
        return f"{turn.tool_name} {turn.tool_command or ''}".rstrip()
    return turn.ended_by
