"""Makes HTTP clients send what their requests belong to."""

from __future__ import annotations

import inspect
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from holdfast.client.control import ControlChannel
from holdfast.client.identity import HEADER_PREFIX, headers_of
from holdfast.client.scope import current
from holdfast.errors import ConfigError

__all__ = ["attach"]

_Client = TypeVar("_Client")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SESSION_HEADER: Final = f"{HEADER_PREFIX}Session-ID"


def attach(
    client: _Client,
    *,
    base_url: str | None = None,
    token: str | None = None,
    cache_salt: str | None = None,
) -> _Client:
    """Make a client send the session, agent and workflow of each of its requests.

        client = attach(OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none"))

    Headers go to the scheme, host and port of the base URL only; on a redirect to another one they
    are removed. Headers that a request sets itself are kept.

    Args:
        client: Of `openai`, `anthropic` or `httpx`, sync or async; copies of it are attached too.
        base_url: The engine; by default the client's own base URL.
        token: The engine's control token: tools, ends of sessions and step graphs are sent to its
            `/holdfast/v1` routes. Without one nothing is sent but headers.
        cache_salt: That of the client's requests, if they have one: commands need the tenant.

    Returns:
        The same client.

    Raises:
        ConfigError: The client has no event hooks of `httpx`, or no base URL is known.
    """
    sender = client if hasattr(client, "event_hooks") else getattr(client, "_client", None)
    if not hasattr(sender, "event_hooks"):
        raise ConfigError(
            f"{type(client).__name__} does not send by httpx",
            hint="attach the httpx client that it sends by, or send holdfast.client.headers()",
        )
    url = str(getattr(client, "base_url", "") if base_url is None else base_url)
    origin = _origin(url)
    if origin is None:
        raise ConfigError(
            f"{url!r} does not name a server", hint='give base_url="http://HOST:PORT"'
        )
    hook = _hook_of(sender)
    hook.channels[origin] = ControlChannel(_address(url), token, cache_salt)
    return client


class _Hook:
    """Sets the headers of requests to known engines, and removes them from all others."""

    def __init__(self) -> None:
        self.channels: dict[tuple[str, str, int | None], ControlChannel] = {}

    def set_headers(self, request: Any) -> None:
        """Set a request's headers. Mutates the request."""
        channel = self.channels.get(_origin(str(request.url)) or ("", "", None))
        if channel is None:
            _remove_headers(request)
            return
        if _SESSION_HEADER in request.headers:
            return  # ids of two senders do not belong together
        scope = current()
        for name, value in headers_of(scope, channel).items():
            request.headers.setdefault(name, value)
        if scope.session is not None:
            scope.session.note_request(channel)
        if scope.workflow is not None:
            scope.workflow.note_request(channel)


def _hook_of(sender: Any) -> _Hook:
    """The hook of an httpx client, which gets one if it has none."""
    hooks = sender.event_hooks
    for callback in hooks.get("request", ()):
        found = getattr(callback, "holdfast_hook", None)
        if isinstance(found, _Hook):
            return found
    hook = _Hook()
    is_async = inspect.iscoroutinefunction(sender.send)
    callback = _async_callback(hook) if is_async else _callback(hook)
    sender.event_hooks = {**hooks, "request": [*hooks.get("request", ()), callback]}
    return hook


def _callback(hook: _Hook) -> Callable[[Any], None]:
    def set_headers(request: Any) -> None:
        hook.set_headers(request)

    set_headers.holdfast_hook = hook  # type: ignore[attr-defined]
    return set_headers


def _async_callback(hook: _Hook) -> Callable[[Any], Awaitable[None]]:
    async def set_headers(request: Any) -> None:
        hook.set_headers(request)

    set_headers.holdfast_hook = hook  # type: ignore[attr-defined]
    return set_headers


def _remove_headers(request: Any) -> None:
    prefix = HEADER_PREFIX.lower()
    for name in [name for name in request.headers if name.lower().startswith(prefix)]:
        del request.headers[name]


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL; None without a host. Pure."""
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.scheme not in _DEFAULT_PORTS:
        return None
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]


def _address(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
