"""Later messages of the system as reminders of the user's side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.policies.ours.message_text import (
    is_from_system,
    is_result,
    shows_no_system,
    texts_of,
    with_text_after,
)

__all__ = ["may_have_inline_system", "without_inline_system"]

_SYSTEM = (b'"system"', b'"developer"')
_UNREADABLE = (msgspec.MsgspecError, RecursionError)


def may_have_inline_system(messages: Sequence[bytes | msgspec.Raw]) -> bool:
    """Whether a later message could be the system's. Pure; O(bytes).

    Args:
        messages: JSON texts of the messages.
    """
    return any(_may_be_from_system(bytes(text)) for text in messages[1:])


def without_inline_system(messages: Sequence[bytes]) -> list[bytes]:
    """Messages with later ones of the system as reminders in those of the user. Pure.

    Those before the first other message stay: they are the system prompt. So do those between a
    call and its result, and those with other content than text.

    Args:
        messages: JSON texts of the messages.

    Returns:
        Texts; those of messages that need no change are the same.
    """
    if not may_have_inline_system(messages):
        return list(messages)
    values = [_decoded(text) for text in messages]
    found: list[bytes] = []
    last: Any = None
    is_head = True
    for index, (text, value) in enumerate(zip(messages, values, strict=True)):
        is_head = is_head and is_from_system(value)
        texts = texts_of(value) if is_from_system(value) and not is_head else None
        following = values[index + 1] if index + 1 < len(values) else None
        if not texts or is_result(following):
            found.append(text)
            last = value
            continue
        reminder = f"<system-reminder>\n{''.join(texts)}\n</system-reminder>"
        if _takes_text(last):
            last = with_text_after(last, reminder)
            found[-1] = msgspec.json.encode(last)
        else:
            last = {"role": "user", "content": reminder}
            found.append(msgspec.json.encode(last))
    return found


def _may_be_from_system(text: bytes) -> bool:
    return not shows_no_system(text) and any(role in text for role in _SYSTEM)


def _takes_text(message: Any) -> bool:
    """Whether a text may be put at the end of a message."""
    return (
        isinstance(message, dict)
        and message.get("role") == "user"
        and isinstance(message.get("content"), str | list)
    )


def _decoded(text: bytes) -> Any:
    if b'"role"' not in text:
        return {"type": "function_call_output"} if b"function_call_output" in text else None
    try:
        return msgspec.json.decode(text)
    except _UNREADABLE:
        return None
