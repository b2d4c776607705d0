"""The end of a recorded answer, and the tool call that predicts the return."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.predict.features import features_of
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.turn_end import turn_end_of
from holdfast.traces.record import EndedBy, ToolSpan

__all__ = ["decisive_tool", "ended_by"]

_HUMAN_STOPS = frozenset({"end_turn", "stop_sequence", "stop", "eos", "complete"})
_TOOL_STOPS = frozenset(
    {"tool_use", "tool_calls", "tool_call", "function_call", "function_calls", "requires_action"}
)


def ended_by(*, has_tools: bool, stop: str | None) -> EndedBy:
    """Classify an answer's end: a tool call, a question to a human or unknown; pure.

    Args:
        has_tools: Whether the answer called a tool.
        stop: The recorded stop reason, in any provider's words. Without one, an answer that called
            no tool went to a human.
    """
    reason = None if stop is None else _plain(stop)
    if has_tools or reason in _TOOL_STOPS:
        return "tool"
    return "human" if reason is None or reason in _HUMAN_STOPS else "unknown"


def _plain(stop: str) -> str:
    """A stop reason without a program's decoration, as in `FinishReason.STOP`."""
    name = stop.lower().rpartition(".")[2].replace("-", "_")
    return name.removeprefix("finish_reason_")


def decisive_tool(tools: Sequence[ToolSpan]) -> tuple[str | None, str | None]:
    """Return name and command of the call that predicts the return; pure.

    Args:
        tools: The calls of one answer, in order; two `None` for an empty sequence.
    """
    if not tools:
        return None, None
    name = features_of(turn_end_of(tuple(ToolCall(tool.name) for tool in tools))).tool
    return name, next(tool.command for tool in reversed(tools) if tool.name == name)
