"""Asks a routing policy, and carries on with the gateway's own if it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from holdfast.gateway.metrics import GatewayMetrics
from holdfast.policies.routers.kv_routing import KvRouting
from holdfast.policies.routing import (
    REASONS,
    EngineView,
    Route,
    RoutedRequest,
    RouteEvent,
    RoutingPolicy,
)

__all__ = ["GuardedRouting"]

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class GuardedRouting(RoutingPolicy):
    """Another policy's routes; those of `KvRouting` once it has failed.

    A policy fails if it raises, or names an engine that it was not shown.

    Args:
        policy: The policy.
        metrics: Counts its failure.
    """

    def __init__(self, policy: RoutingPolicy, metrics: GatewayMetrics) -> None:
        super().__init__()
        self._policy = policy
        self._metrics = metrics

    @property
    def name(self) -> str:
        """Name of the policy that decides now."""
        return self._policy.spec.name

    def observe(self, event: RouteEvent) -> None:
        """Show the policy an event. Mutates it."""
        self._ask(lambda: self._policy.observe(event))

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """Choose an engine. Mutates only on a failure."""
        names = [engine.name for engine in engines]
        found = self._ask(lambda: _checked(self._policy.route(request, engines), names))
        return self._policy.route(request, engines) if found is None else found

    def _ask(self, question: Callable[[], Answer]) -> Answer | None:
        """Ask the policy; one that raises is replaced."""
        try:
            return question()
        except Exception:
            failed, self._policy = self._policy, KvRouting()
            self._metrics.policy_actions.labels(failed.spec.name, "failed").inc()
            logger.exception(
                "policy %s failed and is off until the gateway restarts; %s chooses engines",
                *(failed.spec.name, self.name),
            )
            return None


def _checked(route: Route, names: Sequence[str]) -> Route:
    engine, reason = route
    if engine not in names:
        raise ValueError(f"it chose engine {engine!r}, which it was not shown")
    return Route(engine, reason if reason in REASONS else "other")
