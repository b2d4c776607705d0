"""A scope as headers, or as fields of a request's body."""

from __future__ import annotations

from typing import Any, Final

from holdfast.client.control import ControlChannel
from holdfast.client.scope import Scope, current

__all__ = ["HEADER_PREFIX", "extra_body", "headers", "headers_of"]

HEADER_PREFIX: Final = "X-Holdfast-"
_XARG_PREFIX: Final = "holdfast_"


def headers() -> dict[str, str]:
    """Return the headers of a request that is sent now, for HTTP clients of any kind.

        requests.post(url, json=body, headers=headers())

    Send them to the engine only: they name your sessions.
    """
    return headers_of(current())


def extra_body() -> dict[str, Any]:
    """Return the same as fields of a chat or completion request's body.

        client.chat.completions.create(..., extra_body=extra_body())

    For gateways that drop unknown headers, and for stock vLLM without Holdfast's middleware.
    """
    values = _values(current())
    if not values:
        return {}
    body: dict[str, Any] = {"vllm_xargs": {_XARG_PREFIX + key: value for key, value in values}}
    session_id = dict(values).get("session_id")
    return body if session_id is None else {"session_id": session_id, **body}


def headers_of(scope: Scope, channel: ControlChannel | None = None) -> dict[str, str]:
    """Return a scope's headers. Pure.

    Args:
        scope: What the request belongs to.
        channel: The engine that it goes to; None for any.
    """
    return {_header(key): _text(value) for key, value in _values(scope, channel)}


def _values(
    scope: Scope, channel: ControlChannel | None = None
) -> list[tuple[str, str | float | bool]]:
    session, workflow, expectation = scope.session, scope.workflow, scope.expectation
    found: list[tuple[str, str | float | bool | None]] = []
    if session is not None:
        found += [
            ("session_id", session.id),
            ("parent_session_id", session.parent_id(channel)),
            ("agent_id", session.agent_id),
            ("final", session.is_last_turn or None),
        ]
    if workflow is not None:
        found.append(("workflow_id", workflow.id))
    if expectation is not None:
        found += [
            ("turn_end", expectation.turn_end),
            ("expected_gap_s", expectation.gap_s),
            ("retain_s", expectation.retain_s),
        ]
    return [(key, value) for key, value in found if value is not None]


def _header(key: str) -> str:
    # A header's name has to tell what is final.
    words = ("session_final" if key == "final" else key).split("_")
    return HEADER_PREFIX + "-".join("ID" if word == "id" else word.capitalize() for word in words)


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g}"
