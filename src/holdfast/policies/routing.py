"""The contract of routing policies: which engine a request goes to.

A gateway asks one, and so does a simulated fleet. The rules are those of all policies: it observes
events and answers questions, and questions change nothing. One that raises, or names an engine that
it was not shown, is counted, logged once and set aside, and the gateway's own decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from holdfast.policies.spec import Configured

__all__ = [
    *("REASONS", "EngineLost", "EngineView", "FirstToken", "RequestEnded", "RequestPlaced"),
    *("Route", "RouteEvent", "RoutedRequest", "RoutingPolicy"),
]

REASONS: Final = ("origin", "moved", "prefix", "space", "only", "turn", "hash", "load")
"""Why an engine was chosen, as receipts and metrics say it; of other words they say `other`.

origin: the session's blocks are there. moved: its origin is down, or costs more than computing the
prompt elsewhere. prefix: it was sent most of the prompt. space: the least is in use there. only: no
other engine is up. turn: it is its turn. hash: the client's hash names it. load: the fewest
requests are in flight there.
"""


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """A request that needs an engine.

    Attributes:
        client: Stands for the client: its session's id, or what its first prompt hashes to.
        tenant: Whose request it is; "" without keys.
        num_bytes: Length of its prompt (bytes; tokens in a simulation).
        origin: Engine that had the session's last request, also if it is down; None for a new
            session.
        now_s: Time now (s, monotonic).
    """

    client: str
    tenant: str
    num_bytes: int
    origin: str | None
    now_s: float


@dataclass(frozen=True, slots=True)
class EngineView:
    """An engine that may be chosen, as it is when a request arrives.

    Attributes:
        name: Unique.
        num_in_flight: Requests sent there and not yet answered (count).
        queued_bytes: Prompt bytes sent there and not yet computed, as far as known (bytes).
        missing_bytes: Prompt bytes of the request that it has to compute, as far as known (bytes).
        in_use_bytes: Prompt bytes of the sessions placed there (bytes).
        capacity_bytes: Prompt bytes that its KV cache holds; None if not known.
    """

    name: str
    num_in_flight: int
    queued_bytes: int
    missing_bytes: int
    in_use_bytes: int
    capacity_bytes: int | None


class Route(NamedTuple):
    """The answer.

    Attributes:
        engine: Name of an engine that was shown.
        reason: Why; one of `REASONS`.
    """

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class RequestPlaced:
    """A request has an engine, perhaps not the one that the policy chose.

    Attributes:
        request: The request.
        engine: Where it goes.
    """

    request: RoutedRequest
    engine: str


@dataclass(frozen=True, slots=True)
class FirstToken:
    """An engine has given the first token of an answer: the prompt is computed.

    Attributes:
        request: What it answers.
        engine: The engine.
        time_s: When (s, monotonic).
    """

    request: RoutedRequest
    engine: str
    time_s: float


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over, however it ended.

    Attributes:
        request: The request.
        engine: Where it was.
        time_s: When (s, monotonic).
    """

    request: RoutedRequest
    engine: str
    time_s: float


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An engine is down or has restarted: its cache is empty.

    Attributes:
        engine: The engine.
    """

    engine: str


RouteEvent = RequestPlaced | FirstToken | RequestEnded | EngineLost
"""What a routing policy observes."""


class RoutingPolicy(Configured):
    """Chooses the engine of each request; as it stands the first that is up."""

    def observe(self, event: RouteEvent) -> None:
        """Take note of an event. Mutates the policy only."""

    def route(self, request: RoutedRequest, engines: Sequence[EngineView]) -> Route:
        """Choose an engine for a request. Pure.

        Args:
            request: The request.
            engines: Those that may be chosen, at least one, in a fixed order.
        """
        del request
        return Route(engines[0].name, "load")
