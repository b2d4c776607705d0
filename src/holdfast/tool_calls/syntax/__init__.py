"""The ways in which models write tool calls: one record per syntax, grouped by the shape of a call.

`SYNTAXES` is the table; `ToolCall` is what all of them yield. Nothing here decides whether a call
ended the turn: that is `holdfast.tool_calls.turn_end`.
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
