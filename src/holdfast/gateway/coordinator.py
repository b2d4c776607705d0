"""Decides where the requests of a gateway go, and when."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

import aiohttp

from holdfast.core.tenants import Fairness
from holdfast.errors import EndpointError
from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.dispatch import DEFAULT_ADMISSION, Dispatcher
from holdfast.gateway.engine_probes import EngineProbes
from holdfast.gateway.engines import Engine
from holdfast.gateway.event_reader import KvEventReader
from holdfast.gateway.guarded_routing import GuardedRouting
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.sessions_in_use import SessionKey
from holdfast.gateway.settings import GatewayLimits
from holdfast.policies.routers.kv_routing import KvRouting
from holdfast.policies.routing import RoutingPolicy

__all__ = ["Asked", "Coordinator", "LocalCoordinator", "Placed"]

logger = logging.getLogger(__name__)

_MOST_ANSWERS: Final = 100_000


class Asked(NamedTuple):
    """A request that wants an engine.

    Attributes:
        session_id: Explicit id of its stream, unique among tenants; None without one.
        path: Its prompt; empty where it computes none.
        tenant: Whose request it is.
        answer_id: An earlier answer that only its engine knows; None if it names none.
        without: Names of engines that have just failed.
        body: Its text, for what goes by more than the path.
    """

    session_id: str | None
    path: PromptPath
    tenant: str = ""
    answer_id: str | None = None
    without: tuple[str, ...] = ()
    body: bytes = b""

    def keys(self) -> list[SessionKey]:
        """What its session may be known by, best first. Pure."""
        if self.session_id is not None:
            return [self.session_id]
        return list(reversed(self.path.keys))

    def num_bytes(self) -> int:
        """Length of its prompt (bytes). Pure."""
        return self.path.num_bytes


class Placed(NamedTuple):
    """Where a request goes.

    Attributes:
        request_id: Names it in later reports.
        engine: The engine.
        reason: Why; see `routing.REASONS`.
        missing_bytes: Prompt bytes that the engine has to compute (bytes).
        session_key: Its session.
        elsewhere_ratio: As in `Placement`.
    """

    request_id: str
    engine: Engine
    reason: str
    missing_bytes: int
    session_key: SessionKey
    elsewhere_ratio: float = 0.0


class Coordinator(Protocol):
    """Decides for one gateway; reports about a request follow its placement."""

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Keep up with the engines until cancelled."""

    async def place(self, asked: Asked) -> Placed:
        """Choose a request's engine. Mutates; `ended` must follow.

        Raises:
            Refusal: No engine may answer it.
        """

    async def admitted(self, placed: Placed) -> None:
        """Wait until the engine has space for the request's session."""

    def started(self, placed: Placed) -> None:
        """Take in the first token of an answer. Mutates."""

    def ended(self, placed: Placed, tail: AnswerTail) -> None:
        """Take in that a request is over, however it ended. Mutates."""

    def learn_tokens(self, engine: Engine, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn how many bytes a token has, from one prompt. Mutates."""

    def answered(self, answer_id: str, engine: Engine, tenant: str) -> None:
        """Take in that an engine has stored a tenant's answer. Mutates."""

    def lost(self, engine: Engine) -> None:
        """Take in that an engine cannot be reached; what it held is lost. Mutates."""

    def pass_by(self, engine: Engine) -> None:
        """Send nothing to an engine before it answers a probe. Mutates.

        A busy one keeps what it holds.
        """

    def state(self) -> dict[str, Any]:
        """The state of engines, sessions and tenants, for operators. Pure."""


class LocalCoordinator:
    """Decides in the gateway's own process.

    Args:
        engines: The engines.
        limits: Wait bound, lease, probes.
        metrics: Counts.
        readers: Read KV events of those engines that report them.
        routing: Chooses engines; None takes `KvRouting`.
        admission: Name of the policy that admits turns to engines.
        fairness: How tenants share the engines.

    Attributes:
        dispatcher: Places and holds requests.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        limits: GatewayLimits,
        metrics: GatewayMetrics,
        readers: Sequence[KvEventReader] = (),
        routing: RoutingPolicy | None = None,
        admission: str = DEFAULT_ADMISSION,
        fairness: Fairness | None = None,
    ) -> None:
        self._engines = engines
        self._by_name = {engine.name: engine for engine in engines}
        self._metrics = metrics
        self._readers = readers
        self._routing = GuardedRouting(routing or KvRouting(), metrics)
        self._admission = admission
        self.dispatcher = Dispatcher(
            *(engines, limits.lease_s, limits.max_wait_ratio, self._routing, admission),
            fairness=fairness,
            on_failure=partial(self._admission_failed, admission),
        )
        for engine in engines:
            metrics.watch_held(engine.name, partial(self.dispatcher.held, engine))
        self._probes = EngineProbes(engines, metrics, limits.probe_s, self.lost, self._restarted)
        self._answered_by: OrderedDict[str, tuple[Engine, str]] = OrderedDict()  # and tenant
        self._numbers = itertools.count()
        self._held: dict[str, asyncio.Future[None]] = {}
        self._next_look: asyncio.TimerHandle | None = None

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Probe the engines and read their KV events until cancelled."""
        readers = (reader.run() for reader in self._readers)
        await asyncio.gather(self._probes.run(client), *readers, return_exceptions=True)

    async def place(self, asked: Asked, told: tuple[Engine, int] | None = None) -> Placed:
        """Choose a request's engine. Mutates; `ended` must follow.

        Args:
            asked: The request.
            told: Where its session is otherwise known to be, and the bytes of its prompt there.

        Raises:
            Refusal: No engine is reachable, or it names another tenant's answer.
        """
        request_id = str(next(self._numbers))
        where, owner = self._answered_by.get(asked.answer_id or "", (None, asked.tenant))
        if owner != asked.tenant:
            raise Refusal(404, f"there is no answer {asked.answer_id}")
        try:
            found = self.dispatcher.place(
                *(request_id, asked.session_id, asked.path, monotonic()),
                tenant=asked.tenant,
                without=[self._by_name[name] for name in asked.without],
                where=where,
                told=told,
            )
        except EndpointError as error:
            raise Refusal(503, str(error)) from None
        # At once: another request's report may admit this one before `admitted` is called.
        self._held[request_id] = asyncio.get_running_loop().create_future()
        return Placed(
            *(request_id, found.engine, found.reason, found.missing_bytes),
            *(found.session.key, found.elsewhere_ratio),
        )

    async def admitted(self, placed: Placed) -> None:
        """Wait until the engine has space for the request's session."""
        began_s = monotonic()
        try:
            self._look()
            await self._held[placed.request_id]
        finally:
            self._held.pop(placed.request_id, None)
            self._metrics.held_s.observe(monotonic() - began_s)

    def started(self, placed: Placed) -> None:
        """Take in the first token: the prompt is computed. Mutates."""
        self.dispatcher.started(placed.request_id, monotonic())
        self._look()

    def ended(self, placed: Placed, tail: AnswerTail) -> None:
        """Take in that a request is over, however it ended. Mutates."""
        self._held.pop(placed.request_id, None)
        self.dispatcher.ended(placed.request_id, monotonic(), tail.output_tokens, tail.end)
        self._look()

    def learn_tokens(self, engine: Engine, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn how many bytes a token has, from one prompt. Mutates."""
        self.dispatcher.learn_tokens(engine, prompt_bytes, prompt_tokens)

    def answered(self, answer_id: str, engine: Engine, tenant: str) -> None:
        """Take in that an engine has stored a tenant's answer. Mutates."""
        self._answered_by[answer_id] = engine, tenant
        if len(self._answered_by) > _MOST_ANSWERS:
            self._answered_by.popitem(last=False)

    def lost(self, engine: Engine) -> None:
        """Take in that an engine cannot be reached; what it held is lost. Mutates."""
        self.pass_by(engine)
        self._restarted(engine)

    def pass_by(self, engine: Engine) -> None:
        """Send nothing to an engine before it answers a probe. Mutates.

        A busy one keeps what it holds.
        """
        if engine.is_up:
            logger.warning("engine %s does not answer; its sessions go elsewhere", engine.name)
        engine.is_up = False

    def state(self) -> dict[str, Any]:
        """The state of engines, sessions and tenants, for operators. Pure."""
        dispatcher = self.dispatcher
        engines = [
            {
                "name": engine.name,
                "url": engine.url,
                "up": engine.is_up,
                "requests_in_flight": engine.num_in_flight,
                "queued_bytes": engine.queued_bytes,
                "resident_bytes": engine.residency.held_bytes,
                "in_use_bytes": dispatcher.placements.in_use_bytes(engine),
                "requests_held": dispatcher.held(engine)[0],
                "kv_tokens": engine.kv_tokens,
                "kv_events": engine.events is not None and engine.events.is_current,
            }
            for engine in self._engines
        ]
        tenants = [
            {
                "name": tenant.name,
                "weight": tenant.weight,
                "served_s": tenant.served_s,
                "requests": tenant.num_turns,
                "requests_held": tenant.num_waiting,
            }
            for tenant in dispatcher.tenants.known()
        ]
        return {
            "sessions": len(dispatcher.placements),
            "routing": self._routing.name,
            "admission": self._admission if dispatcher.holds else None,
            "tenants": tenants,
            "engines": engines,
        }

    def _look(self) -> None:
        """Let requests go that may; look again soon while others are held. Mutates."""
        now_s = monotonic()
        for request_id in self.dispatcher.take(now_s):
            held = self._held.get(request_id)
            if held is not None and not held.done():
                held.set_result(None)
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        next_s = self.dispatcher.next_s(now_s)
        if next_s < math.inf:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(next_s - now_s, self._look)

    def _restarted(self, engine: Engine) -> None:
        """Take in that an engine's cache is empty. Mutates."""
        self.dispatcher.lost(engine)
        self._look()

    def _admission_failed(self, name: str) -> None:
        self._metrics.policy_actions.labels(name, "failed").inc()
        logger.exception("policy %s failed; no turn is held until the gateway restarts", name)
