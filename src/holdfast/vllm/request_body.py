"""A JSON request body: its top-level fields, and its text with one more field.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from holdfast.core.client_identity import BODY_FIELDS
from holdfast.core.hints import HINT_FIELDS, MAX_CARRIER_CHARS

__all__ = ["RequestBody"]

_SHAPE_FIELDS: Final = ("tools", "functions", "messages", "input", "previous_response_id")
_CARRIERS: Final = ("vllm_xargs", "kv_transfer_params")
_FIELDS: Final = sorted({*BODY_FIELDS, *HINT_FIELDS, *_SHAPE_FIELDS, *_CARRIERS})
_READER: Final = msgspec.json.Decoder(
    msgspec.defstruct("Fields", [(name, msgspec.Raw, msgspec.Raw()) for name in _FIELDS])
)
_EMPTY: Final = (b"", b"null", b"[]")
_CACHE_CONTROL: Final = b'"cache_control"'
_FLAT_OBJECT: Final = re.compile(rb"\s*:\s*(\{[^{}]*\})")
_MAX_TRIES: Final = 16


class _Message(msgspec.Struct):
    """What tells a message of a user from an answer."""

    role: str = ""
    type: str = "message"


_MESSAGES: Final = msgspec.json.Decoder(list[_Message])


class RequestBody:
    """The text of a JSON object and the fields of it that matter here, undecoded.

    Args:
        text: The text.
        fields: JSON texts of fields, by name.
    """

    def __init__(self, text: bytes, fields: Mapping[str, bytes]) -> None:
        self._text = text
        self._fields = fields

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """Find the fields of a body; None if it is no JSON object that vLLM would read."""
        if text.lstrip()[:1] != b"{":
            return None
        try:
            found = _READER.decode(text)
            return cls(text, {name: bytes(getattr(found, name)) for name in _FIELDS})
        except (msgspec.MsgspecError, RecursionError):
            return cls._parse_leniently(text)

    @classmethod
    def _parse_leniently(cls, text: bytes) -> Self | None:
        """Find the fields as vLLM does, which takes `NaN` and half surrogate pairs."""
        if json.detect_encoding(text) != "utf-8":
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return cls(
            text, {name: json.dumps(found[name]).encode() for name in _FIELDS if name in found}
        )

    def values(self, names: Any) -> dict[str, Any]:
        """Decoded fields, without those that are missing or cannot be decoded."""
        found: dict[str, Any] = {}
        for name in names:
            raw = self._fields.get(name)
            if raw:
                try:
                    found[name] = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
        return found

    def hint_fields(self) -> str:
        """JSON text of the fields that carry hints; "" without any. O(body).

        A field that would make the text longer than `MAX_CARRIER_CHARS` is left out.
        """
        parts: list[bytes] = []
        num_chars = 2
        for name in HINT_FIELDS:
            raw = self._fields.get(name) or b""
            if name == "cache_control" and not raw:
                raw = self._last_cache_control()
            if raw and raw != b"null":
                part = b'"%s":%s' % (name.encode(), raw)
                num_chars += len(part) + 1
                if num_chars <= MAX_CARRIER_CHARS:
                    parts.append(part)
                else:
                    num_chars -= len(part) + 1
        return (b"{%s}" % b",".join(parts)).decode("utf-8", "replace") if parts else ""

    def is_side_shape(self) -> bool:
        """Whether the request has no tools and no earlier answers; only chats can."""
        field = self._fields.get
        if any((field(name) or b"") not in _EMPTY for name in ("tools", "functions")):
            return False
        messages = field("messages") or field("input") or b""
        if not messages.startswith(b"["):
            return False
        try:
            found = _MESSAGES.decode(messages)
        except (msgspec.MsgspecError, RecursionError):
            return False
        is_new = (field("previous_response_id") or b"null") == b"null"
        return is_new and all(m.role != "assistant" and m.type == "message" for m in found)

    def with_entries(self, name: str, entries: Mapping[str, object], stale: Any = ()) -> bytes:
        """The text with entries added to one of its objects; nothing else of it changes.

        Args:
            name: The object's field, which may be missing.
            entries: The entries.
            stale: Keys to remove from the object.

        Returns:
            The text; unchanged if the field is no object.
        """
        old = self._fields.get(name) or b"null"
        if old == b"null":
            merged = json.dumps(entries).encode()
        elif not old.startswith(b"{"):
            return self._text
        elif any(key.encode() in old for key in (*entries, *stale)) or old[1:-1].isspace():
            kept = {key: value for key, value in json.loads(old).items() if key not in stale}
            merged = json.dumps({**kept, **entries}).encode()
        else:
            comma = b"" if old == b"{}" else b","
            merged = old[:-1] + comma + json.dumps(entries).encode()[1:]
        # The last of equal keys counts in every reader that vLLM uses.
        head = self._text.rstrip()[:-1].rstrip()
        comma = b"" if head.lstrip() == b"{" else b","
        return b'%s%s"%s":%s}' % (head, comma, name.encode(), merged)

    def _last_cache_control(self) -> bytes:
        """The last `cache_control` object of content blocks; b"" without one."""
        end = len(self._text)
        for _ in range(_MAX_TRIES):
            start = self._text.rfind(_CACHE_CONTROL, 0, end)
            if start < 0:
                return b""
            match = _FLAT_OBJECT.match(self._text, start + len(_CACHE_CONTROL))
            if match is not None and self._text[start - 1 : start] != b"\\":
                return match[1]
            end = start
        return b""
