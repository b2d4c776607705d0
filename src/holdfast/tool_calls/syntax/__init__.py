"""Syntaxes in which models write tool calls, grouped by the shape of a call.

`SYNTAXES` is the table; all syntaxes yield `ToolCall`. `holdfast.tool_calls.turn_end` decides
whether a call ended the turn.
"""

from holdfast.tool_calls.syntax.base import Extraction, ToolCall, ToolSyntax, make_call
from holdfast.tool_calls.syntax.namespaces import without_namespaces
from holdfast.tool_calls.syntax.registry import SYNTAXES

__all__ = [
    "SYNTAXES",
    "Extraction",
    "ToolCall",
    "ToolSyntax",
    "make_call",
    "without_namespaces",
]
