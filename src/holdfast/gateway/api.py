"""The APIs that pass through the gateway, and their shapes of errors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["GEMINI", "GEMINI_ROUTES", "ROUTES", "Route", "error_body", "error_event", "route_of"]

Dialect = Literal["openai", "responses", "anthropic", "gemini"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path of an engine that clients may reach.

    Attributes:
        path: Without a trailing slash; `*` at its end stands for an id.
        methods: Methods that pass.
        summary: What it is for.
        dialect: Shape of its errors.
        is_generation: Whether it continues a session, which is placed.
        is_embedding: Whether it computes a prompt without one.
    """

    path: str
    methods: frozenset[str]
    summary: str
    dialect: Dialect = "openai"
    is_generation: bool = False
    is_embedding: bool = False

    @property
    def uses_cache(self) -> bool:
        """Whether the engine's prefix cache serves it, so that tenants are kept apart."""
        return self.is_generation or self.is_embedding


_GET: Final = frozenset({"GET", "HEAD"})
_POST: Final = frozenset({"POST"})

ROUTES: Final = (
    Route("/v1/chat/completions", _POST, "Chat Completions.", is_generation=True),
    Route("/v1/completions", _POST, "Completions.", is_generation=True),
    Route("/v1/responses", _POST, "Responses.", "responses", is_generation=True),
    Route(
        "/v1/responses/*",
        frozenset({"GET", "POST", "DELETE"}),
        "A stored response: read, cancel (ID/cancel), delete.",
        "responses",
    ),
    Route("/v1/messages", _POST, "Anthropic Messages.", "anthropic", is_generation=True),
    Route("/v1/messages/count_tokens", _POST, "Tokens of a Messages request.", "anthropic"),
    Route("/v1/models", _GET, "The models of an engine."),
    Route("/v1/models/*", _GET, "One model."),
    Route("/v1/embeddings", _POST, "Embeddings.", is_embedding=True),
    Route("/tokenize", _POST, "Tokens of a text."),
    Route("/detokenize", _POST, "The text of tokens."),
    Route("/version", _GET, "The version of an engine."),
)
"""Engines have more: metrics, resets, sleep. Those are for operators and do not pass."""

GEMINI: Final = Route(
    "/v1beta/models/*", _POST, "Gemini, translated.", "gemini", is_generation=True
)
"""Gemini's API, translated: under v1, v1beta and v1alpha."""

GEMINI_ROUTES: Final = tuple(
    Route(f"/v1beta/models/*:{action}", _POST, text, "gemini", is_generation=True)
    for action, text in (
        ("generateContent", "Gemini's generateContent, as a chat completion."),
        ("streamGenerateContent", "The same as a stream; needs alt=sse."),
        ("countTokens", "Tokens of such a request."),
    )
)
"""What of it passes."""

_GEMINI_PATH: Final = re.compile(
    r"/v1(beta|alpha)?/models/.*:(stream)?([gG]enerateContent|countTokens)"
)
_PLAIN: Final = re.compile(r"[\w.:/-]*", re.ASCII)
_BY_PATH: Final = {route.path: route for route in ROUTES}


def route_of(path: str) -> Route | None:
    """Return the route of a request's path, None if it does not pass. Pure."""
    path = path.rstrip("/")
    found = _BY_PATH.get(path)
    if found is not None or not _PLAIN.fullmatch(path) or "/." in path:
        return found
    if _GEMINI_PATH.fullmatch(path):
        return GEMINI
    for route in ROUTES:
        if route.path.endswith("/*") and path.startswith(route.path[:-1]):
            return route
    return None


def error_body(dialect: Dialect, status: int, message: str) -> bytes:
    """Return the body of an error answer as the API gives it. Pure."""
    return json.dumps(_error(dialect, status, message)).encode()


def error_event(dialect: Dialect, message: str) -> bytes:
    """Return the last event of a stream that breaks off, as the API gives it. Pure."""
    if dialect in ("openai", "gemini"):
        return b"data: " + error_body(dialect, 502, message) + b"\n\n"
    if dialect == "responses":
        event = {"type": "error", "code": "server_error", "message": message, "param": None}
        return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
    return b"event: error\ndata: " + error_body(dialect, 502, message) + b"\n\n"


def _error(dialect: Dialect, status: int, message: str) -> dict[str, Any]:
    if dialect == "anthropic":
        kind = _ANTHROPIC_KINDS.get(
            status, "invalid_request_error" if status < 500 else "api_error"
        )
        return {"type": "error", "error": {"type": kind, "message": message}}
    if dialect == "gemini":
        kind = _GEMINI_KINDS.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        return {"error": {"code": status, "message": message, "status": kind}}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


_ANTHROPIC_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}

_GEMINI_KINDS: Final = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
