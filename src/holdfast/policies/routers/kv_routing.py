"""KV-aware routing: sessions go where their KV blocks are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.policies.routing import EngineView, Route, RoutedRequest, RoutingPolicy
from holdfast.policies.spec import PolicySpec

__all__ = ["KvRouting"]


class KvRouting(RoutingPolicy):
    """Returns sessions to their origin unless that costs more than moving them.

    A session returns to its origin unless the prompt bytes queued there, beside those that it has
    to compute itself, are more than on another engine, queue included: both are engine time in one
    unit. Where an engine is full, what it has to compute counts twice, as it evicts as much of
    other sessions. So a session that its full origin has evicted moves to where less is queued. A
    new session goes where the least is in use, less what its prompt shares there.

    Source: prefill blocks plus load as in Dynamo's KV router; sessions back to their origin as
    measured in llm-d.
    Differs: bytes of prompts instead of blocks; what other sessions hold counts for new sessions
    only, since a move costs the whole prompt.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="kv-routing",
        summary="Sends sessions where their KV blocks are, and new ones where space is.",
        source="Dynamo's KV router; llm-d's measurements of session affinity",
        differs="Bytes instead of blocks; a move counts with the whole prompt.",
    )

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """The engine of least cost. Pure."""
        origin = request.origin
        if origin is None:
            return _for_new(engines)

        def cost(engine: EngineView) -> tuple[int, bool, int]:
            is_origin = engine.name == origin
            computed = engine.missing_bytes
            if _is_full(engine, 0 if is_origin else computed):
                computed *= 2
            return engine.queued_bytes + computed, not is_origin, engine.in_use_bytes

        best = min(engines, key=cost)
        return Route(best.name, "origin" if best.name == origin else "moved")


def _is_full(engine: EngineView, added_bytes: int) -> bool:
    """Whether what is computed there evicts what sessions there will ask for again.

    Args:
        engine: The engine.
        added_bytes: What the request adds to what is in use there (bytes).
    """
    capacity = engine.capacity_bytes
    return capacity is not None and engine.in_use_bytes + added_bytes > capacity


def _for_new(engines: Sequence[EngineView]) -> Route:
    def cost(engine: EngineView) -> tuple[int, int]:
        used = engine.in_use_bytes + engine.queued_bytes
        return used + engine.missing_bytes, engine.num_in_flight

    best = min(engines, key=cost)
    is_shared = best.missing_bytes < max(engine.missing_bytes for engine in engines)
    return Route(best.name, "prefix" if is_shared else "space")
