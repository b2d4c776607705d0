"""Routers of simulated fleets: those in use elsewhere, and the gateway."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.prompt_path import Piece
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.sim.engine import SimRequest
from holdfast.sim.fleet import Router
from holdfast.sim.plan import RunPlan

__all__ = ["fleet_router"]

_BALANCED_DIFFERENCE: Final = 8
_LEAST_SHARED: Final = 0.1


def fleet_router(plan: RunPlan) -> Router | None:
    """The router that a plan names; None for an engine without one."""
    match plan.fleet.router:
        case None:
            return None
        case "round-robin":
            return RoundRobin(plan)
        case "sticky":
            return Sticky(plan)
        case "prefix":
            return PrefixAware(plan)
        case _:
            return GatewayRouter(plan)


class _ImmediateRouter:
    """Sends each request on as it arrives, and knows what is in flight.

    Args:
        plan: Says how many engines there are, and how large their caches.

    Attributes:
        engines: Those that live; their bytes are tokens.
    """

    next_s = math.inf

    def __init__(self, plan: RunPlan) -> None:
        self.engines = {n: _engine(n, plan) for n in range(plan.fleet.num_engines)}
        self._block_tokens = plan.block_tokens
        self._ready: list[tuple[SimRequest, int]] = []
        self._sent: dict[str, tuple[Engine, int]] = {}

    @abstractmethod
    def choose(self, request: SimRequest, path: Sequence[Piece], now_s: float) -> int:
        """The engine of a request. Mutates what the router remembers."""

    def arrived(self, request: SimRequest, now_s: float) -> None:
        """Take in a request. Mutates."""
        path = [Piece(key, self._block_tokens) for key in request.block_keys]
        number = self.choose(request, path, now_s)
        engine = self.engines[number]
        missing = max(request.prompt_tokens - engine.residency.num_resident(path), 0)
        engine.num_in_flight += 1
        engine.queued_bytes += missing
        engine.residency.add(path)
        self._sent[request.request_id] = engine, missing
        self._ready.append((request, number))

    def take(self, now_s: float) -> Sequence[tuple[SimRequest, int]]:
        """Give out what has arrived. Mutates."""
        taken, self._ready = self._ready, []
        return taken

    def started(self, request_id: str, now_s: float) -> None:
        """Take in a first token: the prompt is computed. Mutates."""
        engine, missing = self._sent[request_id]
        engine.queued_bytes -= missing
        self._sent[request_id] = engine, 0

    def ended(self, request_id: str, now_s: float) -> None:
        """Take in an answer. Mutates."""
        engine, missing = self._sent.pop(request_id)
        engine.queued_bytes -= missing
        engine.num_in_flight -= 1

    def lost(self, engine: int, now_s: float) -> None:
        """Take in that an engine is dead. Mutates."""
        dead = self.engines.pop(engine)
        self._sent = {name: each for name, each in self._sent.items() if each[0] is not dead}


class RoundRobin(_ImmediateRouter):
    """One engine after the other."""

    _num_sent = 0

    def choose(self, request: SimRequest, path: Sequence[Piece], now_s: float) -> int:
        """The next engine. Mutates."""
        self._num_sent += 1
        return list(self.engines)[self._num_sent % len(self.engines)]


class Sticky(_ImmediateRouter):
    """A session's engine by its id alone: rendezvous hashing."""

    def choose(self, request: SimRequest, path: Sequence[Piece], now_s: float) -> int:
        """The engine with the greatest hash beside the session's id. Pure."""
        return max(self.engines, key=lambda n: sha256(f"{n}/{request.stream}".encode()).digest())


class PrefixAware(_ImmediateRouter):
    """The engine that was sent most of the prompt, where requests are balanced.

    Source: Ray Serve LLM's prefix-aware router; SGLang's and vLLM's are alike. Least in flight
    where requests in flight differ by more than eight, or no engine shares a tenth of the prompt.
    """

    def choose(self, request: SimRequest, path: Sequence[Piece], now_s: float) -> int:
        """The engine. Pure."""
        loads = {n: engine.num_in_flight for n, engine in self.engines.items()}
        least = min(loads, key=lambda n: loads[n])
        if max(loads.values()) - loads[least] > _BALANCED_DIFFERENCE:
            return least
        shared = {n: engine.residency.num_resident(path) for n, engine in self.engines.items()}
        most = max(self.engines, key=lambda n: (shared[n], -loads[n]))
        return most if shared[most] >= _LEAST_SHARED * request.prompt_tokens else least


class GatewayRouter:
    """The gateway: its placement, and its admission where engines have none.

    Args:
        plan: Says how many engines there are, and how large their caches.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._engines = [_engine(number, plan) for number in range(plan.fleet.num_engines)]
        for engine in self._engines:
            engine.admits = plan.policy not in ENGINE_MODES
        self._dispatcher = Dispatcher(self._engines)
        self._block_tokens = plan.block_tokens
        self._held: dict[str, SimRequest] = {}
        self._open: dict[str, tuple[int, int]] = {}  # engine, and tokens of the answer
        self._now_s = 0.0

    @property
    def next_s(self) -> float:
        """When held requests are to be looked at again (s). Pure."""
        return self._dispatcher.next_s(self._now_s)

    def arrived(self, request: SimRequest, now_s: float) -> None:
        """Take in a request. Mutates."""
        name = request.request_id
        path = [Piece(key, self._block_tokens) for key in request.block_keys]
        placement = self._dispatcher.place(name, request.session_id, path, now_s)
        self._held[name] = request
        self._open[name] = int(placement.engine.name), request.output_tokens

    def take(self, now_s: float) -> Sequence[tuple[SimRequest, int]]:
        """Give out what may go. Mutates."""
        self._now_s = now_s
        taken = self._dispatcher.take(now_s)
        return [(self._held.pop(name), self._open[name][0]) for name in taken]

    def started(self, request_id: str, now_s: float) -> None:
        """Take in a first token. Mutates."""
        self._dispatcher.started(request_id, now_s)

    def ended(self, request_id: str, now_s: float) -> None:
        """Take in an answer. Mutates."""
        _, output_tokens = self._open.pop(request_id)
        self._dispatcher.ended(request_id, now_s, output_tokens)

    def lost(self, engine: int, now_s: float) -> None:
        """Take in that an engine is dead; what was held for it finds another. Mutates."""
        dead = self._engines[engine]
        dead.is_up = False
        names = [name for name, (number, _) in self._open.items() if number == engine]
        for name in names:
            self._dispatcher.ended(name, now_s)
            del self._open[name]
        self._dispatcher.lost(dead)
        for name in names:
            if name in self._held:
                self.arrived(self._held[name], now_s)


def _engine(number: int, plan: RunPlan) -> Engine:
    """An engine as the gateway sees it; a byte stands for a token."""
    engine = Engine(str(number), "", bytes_per_token=1.0)
    engine.learn_capacity(plan.cached_tokens)
    return engine
