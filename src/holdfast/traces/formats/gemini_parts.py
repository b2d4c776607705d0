"""Gemini API messages and usage, as Gemini CLI and Qwen Code record them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.conversation import Conversation
from holdfast.traces.formats.quantities import Tokens
from holdfast.traces.formats.transcript import Call, CalledTool
from holdfast.traces.history import Message

__all__ = ["Content", "FunctionCall", "Part", "Usage", "messages_of", "parts_of", "set_usage"]

_NOTHING = msgspec.Raw(b"null")


class FunctionCall(msgspec.Struct, omit_defaults=True):
    """A tool call."""

    id: str | None = None
    name: str | None = None
    args: msgspec.Raw = _NOTHING

    def as_called_tool(self, start_s: float | None) -> CalledTool:
        """Reduce it to its name and command; pure."""
        arguments = bytes(self.args).decode(errors="replace")
        return CalledTool.of(ToolCall(self.name or "", arguments), start_s)


class FunctionResponse(msgspec.Struct, omit_defaults=True):
    """A tool's result."""

    id: str | None = None
    name: str | None = None
    response: msgspec.Raw = _NOTHING


class Part(msgspec.Struct, rename="camel", omit_defaults=True):
    """A part of a message: the fields that a model sees."""

    text: str | None = None
    thought: bool | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    inline_data: msgspec.Raw = _NOTHING
    file_data: msgspec.Raw = _NOTHING

    @property
    def is_media(self) -> bool:
        """Whether it is an image, a sound or a file."""
        return any(bytes(data) != b"null" for data in (self.inline_data, self.file_data))

    @property
    def is_empty(self) -> bool:
        """Whether a model sees nothing of it."""
        return self == _EMPTY


_EMPTY = Part()

Content = str | Part | list[str | Part] | None
"""A message's content: a text, a part, or a list of them."""


class Usage(msgspec.Struct):
    """The provider's counts.

    Attributes:
        prompt: Tokens of the prompt, cached ones included.
        cached: Cached tokens.
        output: Tokens of the answer.
        thoughts: Tokens of its reasoning; most providers exclude them from `output`.
        total: Sum of prompt, output and separate thoughts.
    """

    prompt: Tokens | None = None
    cached: Tokens | None = None
    output: Tokens | None = None
    thoughts: Tokens | None = None
    total: int | None = None

    @property
    def output_tokens(self) -> int | None:
        """Length of the answer with its reasoning; None if not recorded."""
        if self.output is None and self.thoughts is None:
            return None
        output, thoughts = self.output or 0, self.thoughts or 0
        has_thoughts = self.total == (self.prompt or 0) + output
        return output if has_thoughts else output + thoughts


def set_usage(call: Call, usage: Usage | None) -> None:
    """Set a call's lengths, if its prompt was counted."""
    if usage is not None and usage.prompt:
        call.prompt_tokens = usage.prompt
        call.cached_tokens = usage.cached
        call.output_tokens = usage.output_tokens


def parts_of(content: Content) -> list[Part]:
    """List a content's parts, one for a text; pure."""
    said = content if isinstance(content, list) else [content]
    parts = (Part(text=part or None) if isinstance(part, str) else part for part in said)
    return [part for part in parts if part is not None and not part.is_empty]


def messages_of(conversation: Conversation, role: str, parts: Sequence[Part]) -> Iterator[Message]:
    """Yield each part as a hashed message; pure."""
    for part in parts:
        yield conversation.message(role, part, is_media=part.is_media)
