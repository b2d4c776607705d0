"""A JSON request body and its top-level fields, found once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

import msgspec

__all__ = ["RequestBody"]

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NOTHING: Final = msgspec.Raw()


class RequestBody:
    """The text of a JSON object and its fields, undecoded.

    Attributes:
        text: The text, in UTF-8.
        fields: JSON texts of its fields; of equal keys the last counts, as in vLLM.
    """

    __slots__ = ("_items", "fields", "text")

    def __init__(self, text: bytes, fields: Mapping[str, msgspec.Raw]) -> None:
        self.text = text
        self.fields = fields
        self._items: dict[str, Sequence[msgspec.Raw]] = {}

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """Find the fields of a body; None if it is no JSON object in UTF-8. O(text).

        It takes what vLLM takes, `NaN` and half surrogate pairs as well.
        """
        if text.lstrip()[:1] != b"{":
            return None
        try:
            return cls(text, _FIELDS(text))
        except _UNREADABLE:
            return cls._parse_leniently(text)

    @classmethod
    def _parse_leniently(cls, text: bytes) -> Self | None:
        if json.detect_encoding(text) != "utf-8":
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return cls(text, {name: msgspec.Raw(json.dumps(found[name]).encode()) for name in found})

    def raw(self, name: str) -> bytes:
        """JSON text of a field; b"" if it is missing or null."""
        found = bytes(self.fields.get(name, _NOTHING))
        return b"" if found == b"null" else found

    def has(self, name: str) -> bool:
        """Whether a field is there and is not null. O(1)."""
        found = memoryview(self.fields.get(name, _NOTHING))
        return bytes(found[:5]) not in (b"", b"null")

    def is_array(self, name: str) -> bool:
        """Whether a field is there and is an array. O(1)."""
        return bytes(memoryview(self.fields.get(name, _NOTHING))[:1]) == b"["

    def value(self, name: str) -> Any:
        """A decoded field; None if it is missing or cannot be decoded."""
        return self.values((name,)).get(name)

    def values(self, names: Iterable[str]) -> dict[str, Any]:
        """Decoded fields, without those that are missing or cannot be decoded."""
        found: dict[str, Any] = {}
        for name in names:
            raw = self.fields.get(name)
            if raw is not None:
                try:
                    found[name] = json.loads(bytes(raw))
                except (ValueError, RecursionError):
                    continue
        return found

    def items(self, name: str) -> Sequence[msgspec.Raw]:
        """JSON texts of an array's elements, or of another value; empty if null."""
        found = self._items.get(name)
        if found is None:
            found = self._items[name] = self._find_items(name)
        return found

    def _find_items(self, name: str) -> Sequence[msgspec.Raw]:
        raw = self.fields.get(name, _NOTHING)
        if not self.is_array(name):
            return [raw] if self.has(name) else []
        try:
            return _ITEMS(raw)
        except _UNREADABLE:
            return [raw]

    def with_field(self, name: str, value: object) -> bytes:
        """The text with a field added or replaced; all others are unchanged."""
        text = json.dumps(value).encode()
        if name in self.fields or not self.fields:
            return self.with_raw({name: text})
        head = memoryview(self.text.rstrip())[:-1]
        return b"".join((head, b",", json.dumps(name).encode(), b":", text, b"}"))

    def with_raw(self, texts: Mapping[str, bytes]) -> bytes:
        """The text with fields added or replaced by JSON texts; all others are unchanged."""
        changed = {**self.fields, **texts}
        pairs = (b"%s:%s" % (json.dumps(key).encode(), bytes(changed[key])) for key in changed)
        return b"{%s}" % b",".join(pairs)
