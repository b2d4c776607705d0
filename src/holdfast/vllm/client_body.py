"""What the middleware reads from a request's body, and the body with what it adds.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdfast.core.hints import HINT_FIELDS, MAX_CARRIER_CHARS
from holdfast.core.request_body import RequestBody

__all__ = ["hint_fields", "is_side_shape", "with_entries"]

_EMPTY: Final = (b"", b"[]")
_CACHE_CONTROL: Final = b'"cache_control"'
_FLAT_OBJECT: Final = re.compile(rb"\s*:\s*(\{[^{}]*\})")
_MAX_TRIES: Final = 16


class _Message(msgspec.Struct):
    """What tells a message of a user from an answer."""

    role: str = ""
    type: str = "message"


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


def hint_fields(body: RequestBody) -> str:
    """JSON text of the fields that carry hints; "" without any. Pure; O(body).

    A field that would make the text longer than `MAX_CARRIER_CHARS` is left out.
    """
    parts: list[bytes] = []
    num_chars = 2
    for name in HINT_FIELDS:
        raw = body.raw(name)
        if name == "cache_control" and name not in body.fields:
            raw = _last_cache_control(body.text)
        if raw:
            part = b'"%s":%s' % (name.encode(), raw)
            num_chars += len(part) + 1
            if num_chars <= MAX_CARRIER_CHARS:
                parts.append(part)
            else:
                num_chars -= len(part) + 1
    return (b"{%s}" % b",".join(parts)).decode("utf-8", "replace") if parts else ""


def is_side_shape(body: RequestBody) -> bool:
    """Whether a request has no tools and no earlier answers; only chats can. Pure."""
    if any(body.raw(name) not in _EMPTY for name in ("tools", "functions")):
        return False
    messages = body.raw("messages") or body.raw("input")
    if not messages.startswith(b"["):
        return False
    try:
        found = _MESSAGES.decode(messages)
    except (msgspec.MsgspecError, RecursionError):
        return False
    is_new = not body.raw("previous_response_id")
    return is_new and all(m.role != "assistant" and m.type == "message" for m in found)


def with_entries(
    body: RequestBody, name: str, entries: Mapping[str, object], stale: Any = ()
) -> bytes:
    """The text with entries added to one of its objects, else unchanged. Pure.

    Args:
        body: The body.
        name: The object's field, which may be missing.
        entries: The entries.
        stale: Keys to remove from the object.

    Returns:
        The text; unchanged if the field is no object.
    """
    old = body.raw(name)
    if not old:
        merged = json.dumps(entries).encode()
    elif not old.startswith(b"{"):
        return body.text
    elif any(key.encode() in old for key in (*entries, *stale)) or old[1:-1].isspace():
        kept = {key: value for key, value in json.loads(old).items() if key not in stale}
        merged = json.dumps({**kept, **entries}).encode()
    else:
        comma = b"" if old == b"{}" else b","
        merged = old[:-1] + comma + json.dumps(entries).encode()[1:]
    # The last of equal keys counts in every reader that vLLM uses.
    head = body.text.rstrip()[:-1].rstrip()
    comma = b"" if head.lstrip() == b"{" else b","
    return b'%s%s"%s":%s}' % (head, comma, name.encode(), merged)


def _last_cache_control(text: bytes) -> bytes:
    """The last `cache_control` object of content blocks; b"" without one."""
    end = len(text)
    for _ in range(_MAX_TRIES):
        start = text.rfind(_CACHE_CONTROL, 0, end)
        if start < 0:
            return b""
        match = _FLAT_OBJECT.match(text, start + len(_CACHE_CONTROL))
        if match is not None and text[start - 1 : start] != b"\\":
            return match[1]
        end = start
    return b""
