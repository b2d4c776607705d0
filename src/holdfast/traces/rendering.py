"""Normalises recorded message content to the form that a model sees."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["plain_text", "rendered"]

# A tuple, not a set: a damaged type may be unhashable.
_TEXT_TYPES: Final = ("text", "input_text", "output_text")
_TEXT_FIELDS: Final = ("text", "content")
# Stop reasons and cache directives; they are in no prompt.
_UNSEEN: Final = frozenset({"cache_control", "cachePoint", "finish_reason", "providerOptions"})
# Annotations of a text; none of them changes it.
_NOTES: Final = frozenset({"type", "annotations", "citations", "logprobs", "id"})


def rendered(content: Any) -> Any:
    """Return content in the normal form in which a model sees it; pure.

    A text part, or a list of one text part, becomes the text. Null fields and fields that no model
    sees are left out.

    Args:
        content: Decoded JSON in any provider's layout.
    """
    if isinstance(content, dict):
        text = plain_text(content)
        if text is not None:
            return text
        return {
            name: rendered(value)
            for name, value in content.items()
            if value is not None and name not in _UNSEEN
        }
    if isinstance(content, list):
        parts = [rendered(part) for part in content]
        is_text = len(parts) == 1 and isinstance(content[0], dict) and isinstance(parts[0], str)
        return parts[0] if is_text else parts
    return content


def plain_text(part: dict[str, Any]) -> str | None:
    """The text of a text part; None for a part of another kind. Pure."""
    if part.get("type", "text") not in _TEXT_TYPES:
        return None
    fields = {name for name, value in part.items() if value is not None} - _UNSEEN - _NOTES
    if len(fields) != 1:
        return None
    (name,) = fields
    text = part[name]
    return text if name in _TEXT_FIELDS and isinstance(text, str) else None
