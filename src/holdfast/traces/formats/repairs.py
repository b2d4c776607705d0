"""Values that files have by accident, read as what they stand for.

A field that may be left out may also be null, which says no more. A time below 0 comes of clocks
that disagree and counts as 0; a count below 0 stands for one that is not known. Where JavaScript
cuts a text inside a character of two UTF-16 units, its half becomes the replacement character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

__all__ = ["Repairs", "repaired", "with_whole_characters"]

_Value = TypeVar("_Value")

# More kinds of odd fields in one object are no accident.
_MAX_FIELDS = 32
_REFUSED = re.compile(
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
    """Counts values that were read as something else than what the file has.

    Attributes:
        num_negative: Numbers below 0: times, read as 0, and counts, read as not recorded.
    """

    num_negative: int = 0


def repaired(
    value: Any, error: msgspec.ValidationError, attempt: Callable[[Any], _Value]
) -> tuple[_Value, Repairs] | None:
    """Read once more what was refused, odd values of optional fields put right.

    Args:
        value: Plain decoded JSON; changed.
        error: Why it was refused.
        attempt: Makes the wanted type of it.

    Returns:
        What was made, and how; None where something else is wrong.
    """
    repairs = Repairs()
    for _ in range(_MAX_FIELDS):
        refused = _REFUSED.match(str(error))
        if refused is None or not _put_right(value, refused, attempt, repairs):
            return None
        try:
            return attempt(value), repairs
        except msgspec.ValidationError as other:
            error = other
    return None


def _put_right(
    value: Any, refused: re.Match[str], attempt: Callable[[Any], Any], repairs: Repairs
) -> bool:
    """Put right all fields of the refused one's name; False where the field is needed."""
    name, holders = _holders(value, refused)
    olds = [holder.pop(name) for holder in holders]
    if not olds or _is_needed(name, value, attempt):
        return False
    if refused["null"] is None:
        repairs.num_negative += sum(old < 0 for old in olds)
    if refused["number"] == "float":
        for holder in holders:
            holder[name] = 0.0
    return True


def _holders(value: Any, refused: re.Match[str]) -> tuple[str, list[dict[str, Any]]]:
    """The field's name, and the objects in which it has such a value."""
    # Names of some fields have dots in them, as the way to a field has.
    words = refused["field"].split(".")
    for name in (".".join(words[start:]) for start in range(len(words))):
        holders = [
            each for each in _objects(value) if name in each and _is_refused(each[name], refused)
        ]
        if holders:
            return name, holders
    return "", []


def _is_refused(value: Any, refused: re.Match[str]) -> bool:
    if refused["null"] is not None:
        return value is None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value < float(refused["least"])


def _is_needed(name: str, value: Any, attempt: Callable[[Any], Any]) -> bool:
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
    """JSON text without halves of characters, escaped ones or encoded as if they were whole. Pure.

    What is not UTF-8 for another reason is left as it is.
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
