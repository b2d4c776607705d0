"""Prefix-aware routing: the engine that was sent most of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from msgspec import Meta

from holdfast.policies.routing import EngineView, Route, RoutedRequest, RoutingPolicy
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["PrefixAware", "PrefixAwareSettings"]


class PrefixAwareSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `PrefixAware`.

    Attributes:
        balanced_difference: Most by which requests in flight may differ between engines before
            load alone decides (count).
        least_shared: Share of a prompt that an engine must have for it to decide (0 to 1).
    """

    balanced_difference: Annotated[int, Meta(ge=0)] = 8
    least_shared: Annotated[float, Meta(ge=0, le=1)] = 0.1


class PrefixAware(RoutingPolicy):
    """Takes the engine that was sent most of the prompt, while requests are balanced.

    Source: Ray Serve LLM's prefix-aware router; SGLang's and vLLM's are alike. Least in flight
    where requests in flight differ by more than eight, or no engine shares a tenth of the prompt.
    Differs: pieces of prompts instead of a tree of characters.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="prefix",
        summary="Takes the engine that was sent most of the prompt, while loads are balanced.",
        source="Ray Serve LLM's prefix-aware router",
        differs="Pieces of prompts instead of a tree of characters.",
        settings=PrefixAwareSettings,
    )
    settings: PrefixAwareSettings

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """The engine. Pure."""
        least = min(engines, key=lambda engine: engine.num_in_flight)
        most_in_flight = max(engine.num_in_flight for engine in engines)
        if most_in_flight - least.num_in_flight > self.settings.balanced_difference:
            return Route(least.name, "load")
        most = min(engines, key=lambda engine: (engine.missing_bytes, engine.num_in_flight))
        num_shared = request.num_bytes - most.missing_bytes
        if num_shared >= self.settings.least_shared * request.num_bytes:
            return Route(most.name, "prefix")
        return Route(least.name, "load")
