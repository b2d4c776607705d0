"""Repairs of accidental values.

An optional field may be null, which equals leaving it out. A time below 0, from clocks that
disagree, counts as 0; a count below 0 as not recorded. If JavaScript cut a text inside a character
of two UTF-16 units, its half becomes the replacement character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

__all__ = ["Repairs", "repaired", "with_whole_characters"]

_Value = TypeVar("_Value")

# More kinds of odd fields in one object are not accidental.
_MAX_FIELDS = 32
_REJECTED = re.compile(
    r"^Expected (?:.*, got `(?P<null>null)`|`(?P<number>int|float)` >= (?P<least>[\d.]+))"
    r" - at `\$(?:.*\])?\.(?P<field>[^\]]+)`$",
    re.DOTALL,
)
_OPENINGS = (rb"\ud", rb"\uD")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


@dataclass(slots=True)
class Repairs:
    """Counts repaired values.

    Attributes:
        num_negative: Numbers below 0: times, read as 0, and counts, read as not recorded.
    """

    num_negative: int = 0


def repaired(
    value: Any, error: msgspec.ValidationError, attempt: Callable[[Any], _Value]
) -> tuple[_Value, Repairs] | None:
    """Repair odd values of optional fields and convert again.

    Args:
        value: Plain decoded JSON; mutated.
        error: The error of the first conversion.
        attempt: Converts the value to the wanted type.

    Returns:
        The converted value and its repairs; None if another value is wrong.
    """
    repairs = Repairs()
    for _ in range(_MAX_FIELDS):
        rejected = _REJECTED.match(str(error))
        if rejected is None or not _repair(value, rejected, attempt, repairs):
            return None
        try:
            return attempt(value), repairs
        except msgspec.ValidationError as other:
            error = other
    return None


def _repair(
    value: Any, rejected: re.Match[str], attempt: Callable[[Any], Any], repairs: Repairs
) -> bool:
    """Repair all fields of the rejected one's name; False if the field is required."""
    name, holders = _holders(value, rejected)
    olds = [holder.pop(name) for holder in holders]
    if not olds or _is_required(name, value, attempt):
        return False
    if rejected["null"] is None:
        repairs.num_negative += sum(old < 0 for old in olds)
    if rejected["number"] == "float":
        for holder in holders:
            holder[name] = 0.0
    return True


def _holders(value: Any, rejected: re.Match[str]) -> tuple[str, list[dict[str, Any]]]:
    """Return the rejected field's name and the objects that have such a value."""
    # Field names may contain dots, as the path to a field does.
    words = rejected["field"].split(".")
    for name in (".".join(words[start:]) for start in range(len(words))):
        holders = [
            each for each in _objects(value) if name in each and _is_rejected(each[name], rejected)
        ]
        if holders:
            return name, holders
    return "", []


def _is_rejected(value: Any, rejected: re.Match[str]) -> bool:
    if rejected["null"] is not None:
        return value is None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value < float(rejected["least"])


def _is_required(name: str, value: Any, attempt: Callable[[Any], Any]) -> bool:
    try:
        attempt(value)
    except msgspec.ValidationError as error:
        return f"missing required field `{name}`" in str(error)
    return False


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def with_whole_characters(data: bytes) -> bytes:
    """Replace halves of characters in JSON text, escaped or encoded; pure.

    Text that is not UTF-8 for another reason stays as it is.
    """
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError:
        data = _with_whole_units(data)
    if not any(opening in data for opening in _OPENINGS):
        return data
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found["half"] else found[0], data)


def _with_whole_units(data: bytes) -> bytes:
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
