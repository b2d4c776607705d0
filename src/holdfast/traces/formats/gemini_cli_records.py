"""Records of Gemini CLI's chats, each decoded on its own."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from holdfast.traces.formats.gemini_parts import Content, FunctionCall, Part, Usage, parts_of
from holdfast.traces.formats.quantities import Tokens

__all__ = ["ENDINGS", "SPEAKERS", "Line", "Record", "Session", "ToolCall"]

SPEAKERS: Final = frozenset({"user", "gemini"})
"""Types of messages that a model sees."""

ENDINGS: Final = {"success": False, "error": True, "cancelled": None}
"""Statuses of ended tool calls, and whether each is an error."""


class _Tokens(msgspec.Struct):
    input: Tokens | None = None
    output: Tokens | None = None
    cached: Tokens | None = None
    thoughts: Tokens | None = None
    total: int | None = None

    @property
    def usage(self) -> Usage:
        return Usage(self.input, self.cached, self.output, self.thoughts, self.total)


class _Timed(msgspec.Struct):
    timestamp: datetime | None = None


class ToolCall(FunctionCall, rename="camel"):
    """A tool call in the program's record."""

    result: Content = None
    status: str | None = None
    timestamp: datetime | None = None
    agent_id: str | None = None

    @property
    def responses(self) -> list[Part]:
        """Its result, without parallel calls' results in the same list."""
        parts = parts_of(self.result)
        others = (None, self.id)
        return [
            part
            for part in parts
            if part.function_response is None or part.function_response.id in others
        ]


class Record(msgspec.Struct, rename="camel"):
    """A message."""

    id: str | None = None
    type: str | None = None
    timestamp: datetime | None = None
    content: Content = None
    tool_calls: list[ToolCall] | None = None
    thoughts: list[_Timed] | None = None
    tokens: _Tokens | None = None
    model: str | None = None

    @property
    def is_call(self) -> bool:
        """Whether it answers a request to a model."""
        return self.type == "gemini" and bool(self.tokens or self.model)

    @property
    def calls(self) -> list[ToolCall]:
        """Its tool calls; unfinished ones are only in its content."""
        known = {call.id: call for call in self.tool_calls or ()}
        for part in parts_of(self.content):
            call = part.function_call
            if call is not None and (call.id is None or call.id not in known):
                known[call.id or str(len(known))] = ToolCall(call.id, call.name, call.args)
        return list(known.values())


class Session(msgspec.Struct, rename="camel"):
    """A session's id, kind and messages."""

    session_id: str | None = None
    kind: str | None = None
    messages: list[msgspec.Raw] | None = None


class Line(Session):
    """A line: a session, a message, or a change of either."""

    id: str | None = None
    rewind_to: str | None = msgspec.field(default=None, name="$rewindTo")
    changes: Session | None = msgspec.field(default=None, name="$set")
