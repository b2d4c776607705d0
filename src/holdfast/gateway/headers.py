"""Which headers pass between client and engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict

__all__ = ["RECEIPT", "answer_headers", "by_lower_name", "request_headers"]

RECEIPT: Final = "X-Holdfast-Engine"
"""Names the engine of an answer, and the reason; see `routing.REASONS`."""

_HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "transfer-encoding", "upgrade", "proxy-connection", "expect"),
    }
)
# Set anew for the body that is sent; the body is sent uncompressed.
_OF_BODY: Final = frozenset({"host", "content-length", "content-encoding"})
_ELSEWHERE: Final = "X-Holdfast-Elsewhere-Ratio"
_OF_REQUEST: Final = _OF_BODY | {_ELSEWHERE.lower()}  # the gateway's own word
# By these vLLM takes orders; tenants are not its operators.
_OF_OPERATORS: Final = frozenset({"x-data-parallel-rank", "x-vllm-priority"})
_OF_ANSWER: Final = frozenset({"date", "server", RECEIPT.lower()})


def request_headers(
    headers: Iterable[tuple[str, str]],
    engine_key: str | None,
    session_id: str | None = None,
    elsewhere_ratio: float = 0.0,
    *,
    is_tenants: bool = False,
) -> CIMultiDict[str]:
    """Return the headers to send to an engine. Pure.

    Args:
        headers: The client's.
        engine_key: Bearer token of the engine, in place of the client's credentials; None leaves
            these.
        session_id: The gateway's name of the session, in place of the client's; None leaves that.
        elsewhere_ratio: See `Placement`; 0 tells the engine nothing.
        is_tenants: Whether the client is a tenant, whose orders to the engine do not pass.
    """
    passed = _passing(headers, _OF_REQUEST | (_OF_OPERATORS if is_tenants else frozenset()))
    google_key = passed.pop("x-goog-api-key", None)
    if google_key is not None and engine_key is None:
        passed.setdefault("Authorization", f"Bearer {google_key}")
    if engine_key is not None:
        passed.pop("x-api-key", None)
        passed["Authorization"] = f"Bearer {engine_key}"
    if session_id is not None:
        passed["X-Session-ID"] = session_id
    if elsewhere_ratio:
        passed[_ELSEWHERE] = f"{elsewhere_ratio:.4f}"
    return passed


def answer_headers(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    """Return the headers of an engine's answer to send to the client. Pure."""
    return _passing(headers, _OF_ANSWER)


def _passing(headers: Iterable[tuple[str, str]], others: frozenset[str]) -> CIMultiDict[str]:
    known = list(headers)
    named = {
        name.strip().lower()
        for key, value in known
        if key.lower() == "connection"
        for name in value.split(",")
    }
    dropped = _HOP_BY_HOP | others | named
    return CIMultiDict((key, value) for key, value in known if key.lower() not in dropped)


def by_lower_name(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the first value of each header by lower-case name. Pure."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), value)
    return found
