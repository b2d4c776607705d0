"""Chat messages of several providers, split into the parts that a model sees.

Reads OpenAI's chat completions and responses, Anthropic's messages, Gemini's and Bedrock's
contents, OpenTelemetry's parts, and the variants that frameworks write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import msgspec

from holdfast.tool_calls.syntax import ToolCall
from holdfast.traces.formats.repairs import with_whole_characters
from holdfast.traces.history import Message

__all__ = ["content_parts", "is_tool_result", "json_or_text", "message_parts", "tool_calls"]

_ROLES: Final = {
    "ai": "assistant",
    "model": "assistant",
    "thinking": "assistant",
    "human": "user",
    "function": "tool",
}
_PART_LISTS: Final = ("parts", "content", "contents", "tool_calls")
# Tuples, since a damaged type may be unhashable.
_CALL_TYPES: Final = (
    "tool_call",
    "tool_use",
    "tool-call",
    "toolCall",
    "function",
    "function_call",
    "custom_tool_call",
)
_RESULT_TYPES: Final = (
    "tool_call_response",
    "tool_result",
    "tool-result",
    "toolResult",
    "function_call_output",
    "custom_tool_call_output",
    "function_response",
)
_MEDIA_TYPES: Final = (
    *("image", "image_url", "input_image", "audio", "input_audio", "video"),
    *("file", "input_file", "document", "blob", "media"),
)
_MEDIA_FIELDS: Final = ("inlineData", "inline_data", "fileData", "file_data")
# Fields that hold the whole part.
_CALL_FIELDS: Final = ("functionCall", "function_call", "toolUse", "tool_call")
_RESULT_FIELDS: Final = ("functionResponse", "function_response", "toolResult")
# Fields that are not part of what the model sees.
_METADATA: Final = frozenset(
    {"role", "type", "id", "index", "status", "finish_reason", *_PART_LISTS}
)
_ANYTHING: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def json_or_text(value: Any) -> Any:
    """Decode a text that holds a JSON object or list; return other values as they are."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _ANYTHING.decode(with_whole_characters(value.encode()))
    return value


def message_parts(message: dict[str, Any], *, keeps_text: bool) -> list[Message]:
    """Split a message into one `Message` a part; pure."""
    role = _role(message)
    found: list[Message] = []
    for part in _content(message):
        call = _call(part)
        content = part
        if call is not None:
            content = {"name": call.get("name"), "arguments": _arguments(call)}
        if content not in ("", None):
            is_media = call is None and _is_media(part)
            found.append(Message.of(role, content, is_media=is_media, keeps_text=keeps_text))
    metadata = {name: value for name, value in message.items() if name not in _METADATA and value}
    if metadata and _call(message) is None:
        found.insert(0, Message.of(role, metadata, keeps_text=keeps_text))
    # An empty message is still part of the prompt.
    return found or [Message.of(role, {"role": message.get("role")}, keeps_text=keeps_text)]


def content_parts(role: str, content: Any, *, keeps_text: bool) -> list[Message]:
    """Split content outside of messages into one `Message` a part; pure."""
    content = json_or_text(content)
    parts = content if isinstance(content, list) else [content]
    return [Message.of(role, part, keeps_text=keeps_text) for part in parts]


def tool_calls(message: dict[str, Any]) -> Iterator[ToolCall]:
    """Yield a message's tool calls; pure."""
    for part in _content(message):
        call = _call(part)
        name = None if call is None else call.get("name", call.get("toolName"))
        if call is not None and isinstance(name, str):
            arguments = _arguments(call)
            yield ToolCall(name, msgspec.json.encode(arguments).decode(errors="replace"))


def is_tool_result(message: dict[str, Any]) -> bool:
    """Whether a message holds a tool's result; pure."""
    if _role(message) == "tool":
        return True
    return any(
        isinstance(part, dict)
        and (part.get("type") in _RESULT_TYPES or any(name in part for name in _RESULT_FIELDS))
        for part in _content(message)
    )


def _role(message: dict[str, Any]) -> str:
    role = message.get("role")
    if not isinstance(role, str):
        return "assistant" if message.get("type") in _CALL_TYPES else ""
    return _ROLES.get(role.lower(), role.lower())


def _content(message: dict[str, Any]) -> Iterator[Any]:
    """Yield a message's parts: a text is one part, a bare part is itself."""
    is_part = True
    for name in _PART_LISTS:
        if message.get(name) is None:
            continue
        is_part = False
        value = message[name] if name == "tool_calls" else json_or_text(message[name])
        if not _are_parts(value):
            value = [message[name]]
        for part in value:
            is_call = name == "tool_calls" and isinstance(part, dict)
            yield {"type": "tool_call"} | part if is_call else part
    call = message.get("function_call")
    if isinstance(call, dict):
        yield {"type": "tool_call"} | call
    elif is_part and message.get("type") is not None:
        yield {name: value for name, value in message.items() if name != "role"}


def _is_media(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    return part.get("type") in _MEDIA_TYPES or any(name in part for name in _MEDIA_FIELDS)


def _are_parts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict | str) for part in value)


def _call(part: Any) -> dict[str, Any] | None:
    """Return the object with a tool call's name and arguments; None for other parts."""
    if not isinstance(part, dict):
        return None
    named = (part[name] for name in _CALL_FIELDS if isinstance(part.get(name), dict))
    call = next(named, part if part.get("type") in _CALL_TYPES else None)
    function = None if call is None else call.get("function")
    return function if isinstance(function, dict) else call


def _arguments(call: dict[str, Any]) -> Any:
    for name in ("arguments", "input", "args"):
        if call.get(name) is not None:
            return json_or_text(call[name])
    return None
