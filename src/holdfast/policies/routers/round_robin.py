"""Round robin: one engine after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.policies.routing import (
    EngineView,
    RequestPlaced,
    Route,
    RoutedRequest,
    RouteEvent,
    RoutingPolicy,
)
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["RoundRobin"]


class RoundRobin(RoutingPolicy):
    """Takes the engines in turn, whatever they hold."""

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="round-robin",
        summary="Takes the engines in turn.",
        source="the default of most load balancers",
    )

    def __init__(self, settings: PolicySettings | None = None) -> None:
        super().__init__(settings)
        self._num_placed = 0

    def observe(self, event: RouteEvent) -> None:
        """Count requests. Mutates."""
        if isinstance(event, RequestPlaced):
            self._num_placed += 1

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """The next engine. Pure."""
        del request
        return Route(engines[(self._num_placed + 1) % len(engines)].name, "turn")
