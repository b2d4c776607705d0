"""What a model is shown of a message, however a recording writes it down."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["plain_text", "rendered"]

# Compared, not looked up: a damaged type may be anything.
_TEXT_TYPES: Final = ("text", "input_text", "output_text")
_TEXT_FIELDS: Final = ("text", "content")
# Says how an answer ended or what a provider shall keep, and is in no prompt.
_UNSEEN: Final = frozenset({"cache_control", "cachePoint", "finish_reason", "providerOptions"})
# What notes on a text may be called; none of them changes it.
_NOTES: Final = frozenset({"type", "annotations", "citations", "logprobs", "id"})


def rendered(content: Any) -> Any:
    """Return content in one form for all that reads the same to a model; pure.

    A text, a part that is a text and a list of one such part are the text. Fields that are null or
    that no model sees are left out.

    Args:
        content: Values as JSON has them, of any provider's layout.
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
    """The text that a part of a message is; None for a part of another kind. Pure."""
    if part.get("type", "text") not in _TEXT_TYPES:
        return None
    fields = {name for name, value in part.items() if value is not None} - _UNSEEN - _NOTES
    if len(fields) != 1:
        return None
    (name,) = fields
    text = part[name]
    return text if name in _TEXT_FIELDS and isinstance(text, str) else None
