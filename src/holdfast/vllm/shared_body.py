"""A request's body, read once for all middlewares.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

from holdfast.core.request_body import RequestBody

__all__ = ["shared_body"]

_KEY: Final = "holdfast.request_body"


def shared_body(scope: MutableMapping[str, Any], text: bytes) -> RequestBody | None:
    """The fields of a body, found once in a request. Mutates the scope.

    Args:
        scope: Of the request; see ASGI.
        text: The whole body.

    Returns:
        The body; None if it is no JSON object in UTF-8.
    """
    known: tuple[bytes, RequestBody | None] | None = scope.get(_KEY)
    if known is None or known[0] != text:
        known = scope[_KEY] = text, RequestBody.parse(text)
    return known[1]
