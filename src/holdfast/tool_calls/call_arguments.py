"""The arguments of a tool call: read strictly, looked into by a path, compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = ["UnreadableArgumentsError", "canonical_arguments", "read_arguments", "texts_at"]

_ANY: Final = "*"
_ANYWHERE: Final = "**"


class UnreadableArgumentsError(ValueError):
    """Arguments that two programs may read in two ways, or not at all."""


def read_arguments(text: str) -> dict[str, Any]:
    """Decode arguments; an empty text is an object without fields. Pure.

    Raises:
        UnreadableArgumentsError: They are no JSON object, or have a key twice: programs disagree on
            which of the two counts.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UnreadableArgumentsError(str(error)) from None
    if not isinstance(found, dict):
        raise UnreadableArgumentsError("no JSON object")
    return found


def canonical_arguments(text: str) -> str:
    """Equal texts for equal arguments; what cannot be read is its own text. Pure."""
    try:
        return json.dumps(read_arguments(text), sort_keys=True, separators=(",", ":"))
    except (UnreadableArgumentsError, RecursionError):
        return text


def texts_at(value: object, path: Sequence[str]) -> Iterator[str]:
    """Yield what a path leads to: strings as they are, else JSON text. Pure.

    Args:
        value: Decoded arguments.
        path: Keys and indices; `*` is any one of a level, `**` at its end every scalar and every
            key below.
    """
    if not path:
        yield value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return
    first, rest = path[0], path[1:]
    if first == _ANYWHERE:
        yield from _scalars(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            if first in (_ANY, key):
                yield from texts_at(each, rest)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if first in (_ANY, str(index)):
                yield from texts_at(each, rest)


def _scalars(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending.extend(each)
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
        else:
            yield each if isinstance(each, str) else json.dumps(each)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
