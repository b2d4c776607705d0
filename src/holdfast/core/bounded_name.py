"""Names that clients choose, kept in bounded memory."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["MAX_NAME_CHARS", "bounded_name"]

MAX_NAME_CHARS: Final = 256


def bounded_name(name: str) -> str:
    """Return the name, or its digest if it is longer than `MAX_NAME_CHARS`. Pure.

    A digest, unlike a cut, keeps different names different.
    """
    if len(name) <= MAX_NAME_CHARS:
        return name
    return f"sha256:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
