"""Features of a pause, known when it begins, that predict its length."""

from __future__ import annotations

from typing import Literal

import msgspec

from holdfast.tool_calls.shell_command import argument_class
from holdfast.tool_calls.syntax import ToolCall
from holdfast.tool_calls.tool_kind import ToolKind, tool_kind
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["UNKNOWN_GAP", "GapFeatures", "GapKind", "features_of"]

# A human, an unknown turn end, or the kind of the tool that runs.
GapKind = Literal[
    "human", "unknown", "read", "search", "edit", "plan", "shell", "sub_agent", "web", "other"
]

# Kinds from fast to slow: of parallel calls the slowest decides when the session returns.
_BY_DURATION: tuple[ToolKind, ...] = (
    "plan",
    "read",
    "edit",
    "search",
    "other",
    "shell",
    "web",
    "sub_agent",
)


class GapFeatures(msgspec.Struct, frozen=True, cache_hash=True):
    """Features of a pause, from the coarsest to the finest.

    Attributes:
        kind: What the session waits for.
        tool: Name of the tool; "" for a human or when it is not known.
        argument_class: See `holdfast.tool_calls.shell_command`; "" when there is none.
    """

    kind: GapKind = "unknown"
    tool: str = ""
    argument_class: str = ""


UNKNOWN_GAP = GapFeatures("unknown")
"""A pause after an unknown turn end."""
_HUMAN = GapFeatures("human")
_UNNAMED_TOOL = GapFeatures("other")


def features_of(turn_end: TurnEnd | None) -> GapFeatures:
    """Return the features of the pause after `turn_end`. Pure.

    None counts as an unknown turn end. Of several calls the one of the slowest kind counts, and
    among equals the last.
    """
    if turn_end is None or turn_end.kind == "unknown":
        return UNKNOWN_GAP
    if turn_end.kind == "human":
        # The tool that asks is a feature: a plan approval is not an open question.
        asking = [call.name for call in turn_end.calls if tool_kind(call.name) == "ask_user"]
        return GapFeatures("human", asking[-1]) if asking else _HUMAN
    if not turn_end.calls:
        return _UNNAMED_TOOL
    return _of_call(max(reversed(turn_end.calls), key=_duration_rank))


def _duration_rank(call: ToolCall) -> int:
    kind = tool_kind(call.name)
    return len(_BY_DURATION) if kind == "ask_user" else _BY_DURATION.index(kind)


def _of_call(call: ToolCall) -> GapFeatures:
    kind = tool_kind(call.name)
    if kind == "ask_user":
        return GapFeatures("human", call.name)
    return GapFeatures(kind, call.name, argument_class(call))
