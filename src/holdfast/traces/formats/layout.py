"""Layouts: fields of a JSON object that identify its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

__all__ = ["Layout", "missing_fields"]

Layout: TypeAlias = frozenset[str]
"""Fields that an object must all have.

`a.b` is a field of the object in `a`, `a[].b` of the first object in the list `a`. `a=x|y` is a
field whose text is x or y, `a=x*` one whose text begins with x.
"""

_OBJECT: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_ITEM = "[]"


def missing_fields(record: Mapping[str, msgspec.Raw], layout: Layout) -> list[str]:
    """Return the fields of a layout that an object lacks, sorted; pure."""
    return sorted(field for field in layout if not _has(record, field))


def _has(record: Mapping[str, msgspec.Raw], field: str) -> bool:
    path, _, texts = field.partition("=")
    value: msgspec.Raw | None = None
    for name in path.split("."):
        outer = record if value is None else _decoded(value, _OBJECT) or {}
        value = outer.get(name.removesuffix(_ITEM))
        if name.endswith(_ITEM) and value is not None:
            value = next(iter(_decoded(value, _LIST) or ()), None)
        if value is None:
            return False
    return not texts or _is_one_of(_decoded(value, _TEXT) if value else None, texts)


def _is_one_of(text: str | None, texts: str) -> bool:
    if text is None:
        return False
    if texts.endswith("*"):
        return text.startswith(texts[:-1])
    return text in texts.split("|")


def _decoded(value: msgspec.Raw, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Return a decoded value; None if it has another type."""
    try:
        return decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
