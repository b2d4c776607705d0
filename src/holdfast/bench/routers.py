"""Routers of simulated fleets: the gateway with any routing policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.errors import PolicyError
from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.prompt_path import PromptPath
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.policies.registry import ROUTING_POLICIES, check_deployable
from holdfast.sim.engine import SimRequest
from holdfast.sim.fleet import Router
from holdfast.sim.plan import RunPlan

__all__ = ["check_router", "fleet_router"]

_GATEWAY: Final = "holdfast"
_JOINT: Final = "+"


def check_router(name: str) -> None:
    """Make sure that a router of this name can be built. Pure.

    Raises:
        PolicyError: It is none, has no such setting, or a value is of the wrong type or range.
    """
    routing, _, admission = name.partition(_JOINT)
    if name != _GATEWAY:
        try:
            ROUTING_POLICIES.parse(routing)
            if admission:
                check_deployable(admission)
        except PolicyError as error:
            known = ", ".join([_GATEWAY, *ROUTING_POLICIES.names()])
            raise PolicyError(str(error), hint=error.hint or f"routers: {known}") from error


def fleet_router(plan: RunPlan) -> Router | None:
    """The router that a plan names; None for an engine without one.

    A routing policy by its name places requests and holds none; joined with an admission policy, as
    in `prefix+working-set`, it holds those for which an engine that admits none itself has no
    space. `holdfast` is `kv-routing+working-set`, the gateway as it stands.
    """
    name = plan.fleet.router
    return None if name is None else GatewayRouter(plan, name)


class GatewayRouter:
    """The gateway's decisions for simulated engines.

    Args:
        plan: Says how many engines there are, and how large their caches.
        name: See `fleet_router`.
    """

    def __init__(self, plan: RunPlan, name: str) -> None:
        self._engines = [_engine(number, plan) for number in range(plan.fleet.num_engines)]
        for engine in self._engines:
            engine.admits = plan.policy not in ENGINE_MODES
        routing, _, admission = name.partition(_JOINT)
        if name == _GATEWAY:
            self._dispatcher = Dispatcher(self._engines)
        elif admission:
            parsed = ROUTING_POLICIES.parse(routing)
            self._dispatcher = Dispatcher(self._engines, routing=parsed, admission=admission)
        else:
            parsed = ROUTING_POLICIES.parse(routing)
            self._dispatcher = Dispatcher(self._engines, max_wait_ratio=None, routing=parsed)
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
        path = PromptPath.of(request.block_keys, self._block_tokens)
        placement = self._dispatcher.place(
            name, request.session_id, path, now_s, client=request.stream
        )
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
