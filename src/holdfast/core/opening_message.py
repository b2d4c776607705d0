"""Reads the message of a user with which a prompt begins."""

from __future__ import annotations

import json

from holdfast.core.request_body import RequestBody

__all__ = ["opening_message"]


def opening_message(body: RequestBody) -> str | None:
    """The text of a prompt's first message of a user; None without one. Pure.

    It stays the same as a session goes on, unless its client compacts it.
    """
    for raw in (*body.items("messages"), *body.items("input")):
        try:
            item = json.loads(bytes(raw))
        except (ValueError, RecursionError):
            continue
        if isinstance(item, str):
            return item
        if isinstance(item, dict) and item.get("role") == "user":
            said = item.get("content")
            parts = said if isinstance(said, list) else [{"text": said}]
            texts = (part.get("text") for part in parts if isinstance(part, dict))
            return "\n".join(str(text) for text in texts if text)
    return None
