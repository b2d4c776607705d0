"""Who sends a request, read from its headers and body by the table of clients."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.core.bounded_name import bounded_name
from holdfast.core.client_table import CLIENTS, Client, Field, Named
from holdfast.core.session_id import sub_agent_id

__all__ = ["BODY_FIELDS", "ClientIdentity", "identify"]

_MAX_TEXT_CHARS: Final = 4096
_MAX_INT_BITS: Final = 256
_TRUE: Final = frozenset(("true", "1", "yes"))
_ENDPOINT: Final = re.compile(rb"[0-9A-Za-z.:\[\]-]+:[0-9]{1,5}")

BODY_FIELDS: Final = frozenset(
    field.field.partition(".")[0]
    for client in CLIENTS
    for field in client.fields
    if field.where == "body"
)
"""Top-level fields of bodies that the table of clients names."""


_SOURCES: Final = [
    (
        client,
        frozenset(field.field for field in client.fields if field.where == "header"),
        frozenset(f.field.partition(".")[0] for f in client.fields if f.where == "body"),
    )
    for client in CLIENTS
]


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """Who sends a request, and what its headers announce.

    Attributes:
        client: Name of the client, as in the table; "" if it is not known.
        session_id: The stream of turns; None if nothing names it.
        parent_session_id: The stream that started this one; None if nothing names it.
        agent_id: The agent; None if nothing names it.
        workflow_id: The workflow; None if nothing names it.
        is_final: Whether the session ends with this turn.
        is_side_call: Whether the request is a call beside an agent's own turns, such as for a
            title; it belongs to no stream, and its parent is the agent's.
        announced: Values of Holdfast's headers about the turn, by hint.
    """

    client: str = ""
    session_id: str | None = None
    parent_session_id: str | None = None
    agent_id: str | None = None
    workflow_id: str | None = None
    is_final: bool = False
    is_side_call: bool = False
    announced: tuple[tuple[str, str], ...] = ()


def identify(
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
    *,
    is_side_shape: bool = False,
) -> ClientIdentity:
    """Read who sends a request. Pure; never raises.

    Args:
        headers: By lower-case name.
        body: Top-level fields of its JSON body, `BODY_FIELDS` at least; None if unknown.
        is_side_shape: Whether the request has no tools and no earlier answers.
    """
    body = body or {}
    agent = headers.get("user-agent", "")
    known = next((c for c in CLIENTS if c.agent_of and agent.startswith(c.agent_of)), None)
    own = _read(CLIENTS[0], headers, body)
    row, found = _naming_row(headers, body, agent)
    session_id, parent_id = _stream(found)
    has_tools = any(c is not None and c.always_has_tools for c in (known, row))
    is_side_call = is_side_shape and has_tools
    if is_side_call:
        session_id, parent_id = None, session_id or parent_id
    client = known or row
    announced = ((name, own[name]) for name in _ANNOUNCED if name in own)
    return ClientIdentity(
        client="" if client is None else client.name,
        session_id=None if session_id is None else bounded_name(session_id),
        parent_session_id=None if parent_id is None else bounded_name(parent_id),
        agent_id=_bounded(own.get("agent")),
        workflow_id=_bounded(own.get("workflow")),
        is_final="true" in (own.get("final"), found.get("final")),
        is_side_call=is_side_call,
        announced=tuple(announced),
    )


_ANNOUNCED: Final[tuple[Named, ...]] = (
    *("expected_gap_s", "retain_s", "turn_end"),
    "elsewhere_ratio",
)


def _bounded(name: str | None) -> str | None:
    return None if name is None else bounded_name(name)


def _naming_row(
    headers: Mapping[str, str], body: Mapping[str, Any], agent: str
) -> tuple[Client | None, Mapping[Named, str]]:
    """The first row that names a stream or a parent, and what its fields name."""
    for client, names, parts in _SOURCES:
        if names.isdisjoint(headers) and parts.isdisjoint(body):
            continue
        if client.is_required and not agent.startswith(client.agent_of):
            continue
        found = _read(client, headers, body)
        if "session" in found or ("parent" in found and client.name == "Holdfast"):
            return client, found
    return None, {}


def _stream(found: Mapping[Named, str]) -> tuple[str | None, str | None]:
    """Ids of a stream and of the one that started it."""
    session_id, parent_id = found.get("session"), found.get("parent")
    sub_agent = found.get("sub_agent")
    if session_id is not None and sub_agent is not None:
        parent = found.get("parent_sub_agent")
        parent_id = session_id if parent in (None, sub_agent) else sub_agent_id(session_id, parent)
        session_id = sub_agent_id(session_id, sub_agent)
    return session_id, None if parent_id == session_id else parent_id


def _read(client: Client, headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[Named, str]:
    found: dict[Named, str] = {}
    for field in client.fields:
        if field.named not in found:
            where = headers.get(field.field) if field.where == "header" else _part(body, field)
            value = _text(where)
            if value is not None and field.pattern:
                match = re.search(field.pattern, value)
                value = None if match is None else match[1]
            if value is not None and field.named == "final":
                value = "true" if value.casefold() in _TRUE else "false"
            if value is not None and not (field.field == "x-session-id" and _is_endpoint(value)):
                found[field.named] = value
    return found


def _part(body: Mapping[str, Any], field: Field) -> object:
    """The part of a body at a path with dots; texts on the way are read as JSON."""
    value: object = body
    for name in field.field.split("."):
        if isinstance(value, str) and value.startswith("{") and len(value) <= _MAX_TEXT_CHARS:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _text(value: object) -> str | None:
    """An id or a flag as text; None without a printable one."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS:
        return str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()
    return value if value and value.isprintable() else None


def _is_endpoint(value: str) -> bool:
    """Whether an id is the base64 of `host:port`, as AIBrix's session headers are."""
    try:
        decoded = base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return _ENDPOINT.fullmatch(decoded) is not None
