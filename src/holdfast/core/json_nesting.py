"""How deep a JSON text is nested, without parsing it."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Final

__all__ = ["nesting_depth"]

_OTHERS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS: Final = {ord(b"["): 1, ord(b"{"): 1, ord(b"]"): -1, ord(b"}"): -1}


def nesting_depth(body: bytes, *, enough: int = 0) -> int:
    """Levels of objects and arrays in a JSON text (count). Pure.

    Args:
        body: The text, in an encoding of JSON; need not be well formed.
        enough: If the text opens no more objects and arrays than this, returns their number
            instead, which is faster (count).
    """
    encoding = json.detect_encoding(body)
    if not encoding.startswith("utf-8"):
        body = body.decode(encoding, "replace").encode("utf-8", "replace")
    num_opened = body.count(b"[") + body.count(b"{")
    if num_opened <= enough:
        return num_opened
    for escape in (rb"\\", rb"\""):
        if escape in body:
            body = body.replace(escape, b"")
    # Now every second part between quotation marks is inside of a string.
    brackets = b"".join(body.split(b'"')[::2]).translate(None, _OTHERS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
