"""Ids and values in a form that every header, body and path can carry."""

from __future__ import annotations

import math
import urllib.parse
import uuid

from holdfast.core.bounded_name import bounded_name
from holdfast.errors import ConfigError

__all__ = ["clean_id", "new_id", "seconds"]

# Every printable ASCII character stands for itself.
_SAFE = "".join(map(chr, range(0x20, 0x7F)))


def new_id() -> str:
    """Return an id that no other process makes."""
    return uuid.uuid4().hex


def clean_id(value: str, *, what: str) -> str:
    """Return an id as the engine will know it. Pure.

    Other characters than printable ASCII are percent-encoded; a text of more than 256 characters
    becomes its digest.

    Args:
        value: The id; white space around it is dropped.
        what: Names the id in the error.

    Raises:
        ConfigError: It is empty, or no string.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise ConfigError(f"{what} must be a string that is not empty, not {value!r}")
    return bounded_name(urllib.parse.quote(text, safe=_SAFE, errors="surrogatepass"))


def seconds(value: float | None, *, what: str) -> float | None:
    """Return a checked number of seconds. Pure.

    Raises:
        ConfigError: It is negative, infinite or no number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{what} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf:
        raise ConfigError(f"{what} must be a finite number of seconds >= 0, not {value!r}")
    return float(value)
