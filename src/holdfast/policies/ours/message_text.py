"""Texts of a decoded message, in the forms of the three APIs."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

__all__ = [
    *("TEXT_TYPES", "is_from_system", "is_result", "is_users"),
    *("shows_no_system", "texts_of", "with_text_after", "with_text_before"),
]

TEXT_TYPES: Final = ("text", "input_text", "output_text")
"""Types of blocks with a text."""

_OTHER_ROLES: Final = [
    b'"role":%s"%s"' % (blank, role)
    for blank in (b"", b" ")
    for role in (b"user", b"assistant", b"tool")
]
_BEGINNINGS: Final = tuple(b"{" + role for role in _OTHER_ROLES)
_ENDS: Final = tuple(b"," + blank + role + b"}" for role in _OTHER_ROLES for blank in (b"", b" "))
_RESULT_TYPES: Final = ("tool_result", "function_call_output")


def texts_of(value: Any) -> list[str] | None:
    """The texts of a message, a block or a text; None if it has other content. Pure."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        found: list[str] = []
        for each in value:
            texts = texts_of(each) if isinstance(each, str | dict) else None
            if texts is None:
                return None
            found += texts
        return found
    if isinstance(value, dict):
        if value.get("type") in TEXT_TYPES:
            return [value["text"]] if isinstance(value.get("text"), str) else None
        return texts_of(value["content"]) if "content" in value and "role" in value else None
    return None


def shows_no_system(text: bytes) -> bool:
    """Whether a JSON text of a message shows another role. Pure; O(1).

    Looks at its beginning and end only, so that most messages need not be decoded.
    """
    return text.startswith(_BEGINNINGS) or text.endswith(_ENDS)


def is_from_system(message: Any) -> bool:
    """Whether a message is the system's or a developer's. Pure."""
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def is_result(message: Any) -> bool:
    """Whether a message has results of tools. Pure."""
    if not isinstance(message, dict):
        return False
    if message.get("role") == "tool" or message.get("type") in _RESULT_TYPES:
        return True
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return any(isinstance(each, dict) and each.get("type") in _RESULT_TYPES for each in blocks)


def is_users(message: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a message is a user's words, without results of tools. Pure."""
    return (
        isinstance(message, dict)
        and message.get("role") == "user"
        and bool(message.get("content"))
        and isinstance(message["content"], str | list)
        and not is_result(message)
    )


def with_text_before(message: dict[str, Any], text: str) -> dict[str, Any]:
    """A user's message with a text before its own. Pure."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{text}\n\n{content}"}
    return {**message, "content": [_block(message, text), *content]}


def with_text_after(message: dict[str, Any], text: str) -> dict[str, Any]:
    """A user's message with a text after its own. Pure."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{content}\n\n{text}"}
    return {**message, "content": [*content, _block(message, text)]}


def _block(message: dict[str, Any], text: str) -> dict[str, Any]:
    types = {each.get("type") for each in message["content"] if isinstance(each, dict)}
    is_input = any(str(kind).startswith("input_") for kind in types)
    return {"type": "input_text" if is_input else "text", "text": text}
