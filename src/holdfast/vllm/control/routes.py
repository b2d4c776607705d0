"""ASGI middleware with the routes under `/holdfast/v1`.

It needs a token (`routes_token_file` or `HOLDFAST_ROUTES_TOKEN`); without one it changes nothing.
`holdfast serve` installs it where a token is set; elsewhere give
`vllm serve --middleware holdfast.vllm.control.routes.ControlRoutes`.

Process: API server. Imports nothing of vLLM.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

import msgspec

from holdfast.bearer_token import TOKEN_VARIABLE, routes_token
from holdfast.config import load_config
from holdfast.vllm.control.channel import ChannelError, EngineChannel
from holdfast.vllm.control.messages import CommandReport, StateQuery, StateReport
from holdfast.vllm.control.parse import MAX_BODY_BYTES, PREFIX, HttpCall, RouteError, parse_call

__all__ = ["TENANT_HEADER", "ControlRoutes"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_Headers = dict[bytes, bytes]

TENANT_HEADER: Final = b"x-holdfast-cache-salt"
"""Names the tenant; no part of the address, which servers log."""

_SHORT: Final = "/holdfast/sessions"  # what operators type
_MAX_LENGTH_DIGITS: Final = 18
_STATUSES: Final = {"unknown_session": 404, "unknown_workflow": 404, "rejected": 409}
_RANK: Final = ("accepted", "clipped", "rejected", "unknown_session", "unknown_workflow")

logger = logging.getLogger(__name__)


class ControlRoutes:
    """Serves control requests with the right token and changes nothing else.

    Args:
        app: The application.
        channel: Asks the engines.

    Raises:
        ConfigError: A setting, or the token, cannot be used.
    """

    def __init__(self, app: Any, channel: EngineChannel | None = None) -> None:
        self._app = app
        self._channel = channel or EngineChannel()
        self._token = routes_token(load_config(None, os.environ).routes_token_file, os.environ)
        if self._token is None:
            logger.warning(
                "the routes under %s are off: set HOLDFAST_ROUTES_TOKEN_FILE or %s",
                *(PREFIX, TOKEN_VARIABLE),
            )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection; see ASGI."""
        path = _path_of(scope) if scope["type"] == "http" and self._token is not None else ""
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, content = 200, await self._answer(scope, path, receive)
        except RouteError as error:
            status, content = error.status, _error(error.status, error.message, error.where)
            if error.allowed:
                headers.append((b"allow", ", ".join(error.allowed).encode()))
            if status == 401:
                headers.append((b"www-authenticate", b"Bearer"))
        except ChannelError as error:
            status, content = error.status, _error(error.status, error.message)
        await _send_json(send, status, content, headers)

    async def _answer(self, scope: Message, path: str, receive: Receive) -> Any:
        """What a request is answered with, unless it fails."""
        headers: _Headers = {}
        for name, value in scope.get("headers", ()):
            headers.setdefault(name.lower(), value)
        assert self._token is not None
        if not self._token.admits(headers.get(b"authorization")):
            raise RouteError(401, "expected the header `Authorization: Bearer` with the token")
        call = HttpCall(
            method=scope["method"].upper(),
            path=path,
            query=scope.get("query_string", b"").decode("latin-1"),
            tenant=_tenant_of(headers),
            body=await _body_of(headers, receive),
        )
        request = parse_call(call)
        engine_client = getattr(getattr(scope.get("app"), "state", None), "engine_client", None)
        answers = await self._channel.ask(engine_client, request)
        if isinstance(request, StateQuery):
            reports = [msgspec.msgpack.decode(answer, type=StateReport) for answer in answers]
            return {"engines": reports}
        return _outcome([msgspec.msgpack.decode(one, type=CommandReport) for one in answers])


def _outcome(reports: Iterable[CommandReport]) -> Any:
    """The best outcome of all engines: a session is on one of them."""
    best = min(reports, key=lambda report: _RANK.index(report.outcome))
    status = _STATUSES.get(best.outcome)
    if status is not None:
        raise RouteError(status, best.reason, best.outcome)
    return {"outcome": best.outcome, "reason": best.reason}


def _path_of(scope: Message) -> str:
    """The path as sent, with escapes, without the prefix of a proxy, with the version."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    path = raw.partition(b"?")[0].decode("latin-1")
    path = path.removeprefix(scope.get("root_path") or "")
    is_short = path == _SHORT or path.startswith(f"{_SHORT}/")
    return PREFIX + path.removeprefix(_SHORT.rpartition("/")[0]) if is_short else path


def _tenant_of(headers: _Headers) -> str | None:
    value = headers.get(TENANT_HEADER)
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RouteError(400, "not UTF-8", TENANT_HEADER.decode()) from error


async def _body_of(headers: _Headers, receive: Receive) -> bytes:
    """The whole body.

    Raises:
        RouteError: It is too large.
    """
    length = headers.get(b"content-length", b"")
    too_large = RouteError(413, f"larger than {MAX_BODY_BYTES >> 20} MiB", "body")
    if length.isdigit() and (len(length) > _MAX_LENGTH_DIGITS or int(length) > MAX_BODY_BYTES):
        raise too_large
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise too_large
        if not message.get("more_body"):
            break
    return bytes(body)


def _error(status: int, message: str, where: str | None = None) -> Any:
    """An error in the form of vLLM's."""
    kind = "BadRequestError" if status < 500 else "ServerError"
    return {"error": {"message": message, "type": kind, "param": where, "code": status}}


async def _send_json(
    send: Send, status: int, content: Any, headers: list[tuple[bytes, bytes]]
) -> None:
    body = msgspec.json.encode(content)
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
