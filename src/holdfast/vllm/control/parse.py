"""Reads HTTP requests to the control routes as commands or queries.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Meta

from holdfast.core.commands import (
    CloseSession,
    DeclareWorkflow,
    EndWorkflow,
    ToolFinished,
    ToolStarted,
)
from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.vllm.control.messages import MAX_SESSIONS_A_PAGE, ControlRequest, StateQuery

__all__ = ["MAX_BODY_BYTES", "PREFIX", "HttpCall", "RouteError", "parse_call"]

PREFIX: Final = "/holdfast/v1"
"""Path below which all routes are."""

MAX_BODY_BYTES: Final = 4 << 20
"""Largest body of a request (bytes)."""

_MAX_ID_CHARS: Final = 4096


class RouteError(Exception):
    """A request that cannot be served.

    Attributes:
        status: HTTP status.
        message: What is wrong.
        where: The part of the request that is wrong, None for the whole.
        allowed: Methods that the path has, for 405.
    """

    def __init__(
        self, status: int, message: str, where: str | None = None, allowed: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.where = where
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request.

    Attributes:
        method: In upper case.
        path: As sent, with escapes, from `PREFIX` on.
        query: As sent, without the question mark.
        tenant: The `cache_salt` of the tenant that it is about; None if not named.
        body: The whole body.
    """

    method: str
    path: str
    query: str = ""
    tenant: str | None = None
    body: bytes = b""


class _Started(msgspec.Struct, forbid_unknown_fields=True, tag_field="event", tag="started"):
    tool: Annotated[str, Meta(max_length=1024)] = ""
    expected_s: Annotated[float, Meta(ge=0)] | None = None


class _Finished(msgspec.Struct, forbid_unknown_fields=True, tag_field="event", tag="finished"):
    tool: Annotated[str, Meta(max_length=1024)] = ""


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=-1, le=1 << 53)] = -1
    limit: Annotated[int, Meta(ge=1, le=MAX_SESSIONS_A_PAGE)] = 100


_Reader = Callable[[HttpCall, str], ControlRequest]


def parse_call(call: HttpCall) -> ControlRequest:
    """The command or query that a request is. Pure.

    Raises:
        RouteError: There is no such path or method, or the request is malformed.
    """
    methods: dict[str, _Reader]
    match call.path.removeprefix(PREFIX).split("/")[1:]:
        case ["workflows", name]:
            methods = {"PUT": _declare_workflow, "DELETE": _end_workflow}
        case ["sessions", name, "tools"]:
            methods = {"POST": _tool_event}
        case ["sessions", name]:
            methods = {"DELETE": _close_session, "GET": _query_session}
        case ["state"] | ["sessions"]:
            name, methods = "", {"GET": _query_state}
        case _:
            raise RouteError(404, "no such route; see docs/routes.md")
    read = methods.get(call.method)
    if read is None:
        allowed = tuple(methods)
        raise RouteError(405, f"expected {' or '.join(allowed)}", allowed=allowed)
    return read(call, name)


def _declare_workflow(call: HttpCall, name: str) -> ControlRequest:
    return DeclareWorkflow(call.tenant or "", _id(name), _decoded(call.body, WorkflowGraph))


def _end_workflow(call: HttpCall, name: str) -> ControlRequest:
    _expect_no_body(call)
    return EndWorkflow(call.tenant or "", _id(name))


def _tool_event(call: HttpCall, name: str) -> ControlRequest:
    event = _decoded(call.body, _Started | _Finished)
    if isinstance(event, _Started):
        return ToolStarted(call.tenant or "", _id(name), event.tool, event.expected_s)
    return ToolFinished(call.tenant or "", _id(name), event.tool)


def _close_session(call: HttpCall, name: str) -> ControlRequest:
    _expect_no_body(call)
    return CloseSession(call.tenant or "", _id(name))


def _query_session(call: HttpCall, name: str) -> ControlRequest:
    _expect_no_body(call)
    return StateQuery(call.tenant, session_id=_id(name))


def _query_state(call: HttpCall, _: str) -> ControlRequest:
    _expect_no_body(call)
    try:
        values = dict(
            parse_qsl(call.query, keep_blank_values=True, strict_parsing=bool(call.query))
        )
        page = msgspec.convert(values, _Page, strict=False)
    except ValueError as error:  # msgspec's is one
        raise RouteError(400, str(error), "query") from error
    return StateQuery(call.tenant, page.after, page.limit)


def _id(escaped: str) -> str:
    """The id that a part of the path names."""
    try:
        name = unquote_to_bytes(escaped).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RouteError(400, "the id is not UTF-8", "path") from error
    if not name or len(name) > _MAX_ID_CHARS or not name.isprintable():
        raise RouteError(
            400, f"expected an id of 1 to {_MAX_ID_CHARS} printable characters", "path"
        )
    return name


def _expect_no_body(call: HttpCall) -> None:
    if call.body.strip() not in (b"", b"{}"):
        raise RouteError(400, f"{call.method} takes no body", "body")


def _decoded(body: bytes, kind: Any) -> Any:
    """The body as an object of some type."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `")
        _refuse(reason, where.rstrip("`") or "$")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(f"not JSON: {error}", "$")


def _refuse(reason: str, where: str) -> NoReturn:
    raise RouteError(400, reason, f"body {where}")
