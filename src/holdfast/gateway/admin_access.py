"""Who may read the gateway's admin routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from holdfast.bearer_token import BearerToken

__all__ = ["AdminAccess"]

_HEALTH: Final = "/health"  # tells nothing, and probes rarely send a token
_METRICS: Final = "/metrics"


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """What the admin routes ask of a request; `/health` asks nothing.

    Attributes:
        token: What each request must have; None lets everyone read who reaches the port.
        has_open_metrics: Whether `/metrics` needs no token.
    """

    token: BearerToken | None = None
    has_open_metrics: bool = False

    def guard(self) -> Middleware:
        """The middleware that refuses requests without the token."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            header = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if self.token is None or self._is_open(request.path) or self.token.admits(header):
                return await handler(request)
            message = "expected the header `Authorization: Bearer` with the admin token"
            return web.json_response(
                {"error": {"message": message, "code": 401}},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )

        return guarded

    def _is_open(self, path: str) -> bool:
        return path == _HEALTH or (self.has_open_metrics and path == _METRICS)
