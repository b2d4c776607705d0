"""Sticky routing: a client's engine by its name alone."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar

from holdfast.policies.routing import EngineView, Route, RoutedRequest, RoutingPolicy
from holdfast.policies.spec import PolicySpec

__all__ = ["Sticky"]


class Sticky(RoutingPolicy):
    """Takes the engine with the greatest hash beside the client's name.

    Source: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="sticky",
        summary="Keeps each client on the engine that its hash names.",
        source="rendezvous hashing, Thaler and Ravishankar 1998",
    )

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """The client's engine; another only while that one is down. Pure; O(engines)."""
        best = max(engines, key=lambda engine: _hash(engine.name, request.client))
        return Route(best.name, "hash")


def _hash(engine: str, client: str) -> bytes:
    return sha256(f"{engine}/{client}".encode("utf-8", "surrogatepass")).digest()
