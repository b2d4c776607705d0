"""Decides for all replicas of a gateway: one dispatcher, one view of the engines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, NamedTuple

import aiohttp

from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.coordinator import Asked, LocalCoordinator, Placed
from holdfast.gateway.engines import Engine
from holdfast.gateway.owner_messages import (
    Answered,
    Ended,
    EngineLost,
    EngineSeen,
    Event,
    Known,
    Refused,
    Report,
    Sent,
    Started,
    TokensCounted,
)
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.shared_origins import OriginTable

__all__ = ["Owner"]

logger = logging.getLogger(__name__)

_SILENT_S: Final = 10.0
_LOOK_S: Final = 1.0
_UNKNOWN: Final = AnswerTail(None, None, None)
_GONE: Final = Refused(499, "the replica no longer has this request")


class _Open(NamedTuple):
    """A request of a replica.

    Attributes:
        placed: Where it goes.
        waiting: Done when the engine has space for it.
    """

    placed: Placed
    waiting: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Replica:
    """A replica that has joined.

    Attributes:
        heard_s: When it last reported (s, monotonic).
        next_number: By its last report: lower numbers are in use only if they are open.
        open_numbers: Of its last report.
        requests: Its requests by number.
        metrics: Its counts, as text.
    """

    heard_s: float
    next_number: int = 0
    open_numbers: frozenset[int] = frozenset()
    requests: dict[int, _Open] = field(default_factory=dict)
    metrics: str = ""


class Owner:
    """Decides where the requests of all replicas go, and when.

    All that it knows is soft. A new owner learns from its replicas where sessions were; it counts
    only requests that it has placed. The requests of a replica that is silent for ten seconds are
    over.

    Not thread-safe.

    Args:
        engines: The engines.
        coordinator: Decides.
        lease_s: What replicas told of sessions idle for longer is ignored (s).
        silent_s: Silence after which a replica counts as dead (s).
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        coordinator: LocalCoordinator,
        lease_s: float,
        silent_s: float = _SILENT_S,
    ) -> None:
        self._engines = {engine.name: engine for engine in engines}
        self._coordinator = coordinator
        self._silent_s = silent_s
        self._told = OriginTable(lease_s)
        self._replicas: dict[str, _Replica] = {}

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Keep up with engines and replicas until cancelled."""
        await asyncio.gather(self._coordinator.run(client), self._watch(), return_exceptions=True)

    async def place(self, name: str, number: int, asked: Asked) -> Sent | Refused | None:
        """Wait for a request's engine and its space there. Mutates.

        Args:
            name: The replica.
            number: The request among the replica's.
            asked: The request.

        Returns:
            None if the replica is not known: it must join first.
        """
        replica = self._replicas.get(name)
        if replica is None:
            return None
        if number < replica.next_number and number not in replica.open_numbers:
            return _GONE  # it has left before this arrived
        try:
            placed = await self._coordinator.place(asked, self._told_of(asked))
        except Refusal as refusal:
            return Refused(refusal.status, str(refusal))
        waiting = asyncio.ensure_future(self._coordinator.admitted(placed))
        replica.requests[number] = _Open(placed, waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if number not in replica.requests:
                return _GONE
            self._end(replica, number)
            raise
        return Sent(
            *(placed.engine.name, placed.reason, placed.missing_bytes),
            *(placed.session_key, placed.elsewhere_ratio),
        )

    def report(self, name: str, report: Report) -> Mapping[str, EngineSeen] | None:
        """Take in a replica's report; the state of engines. Mutates.

        Returns:
            None if the replica is not known: it must join first.
        """
        replica = self._replicas.get(name)
        if replica is None:
            return None
        replica.heard_s = monotonic()
        for event in report.events:
            self._take_in(replica, event)
        replica.next_number, replica.open_numbers = report.next_number, report.open_numbers
        for number in list(replica.requests):
            if number < report.next_number and number not in report.open_numbers:
                self._end(replica, number)
        if report.metrics is not None:
            replica.metrics = report.metrics
        return {
            engine.name: EngineSeen(engine.is_up, engine.bytes_per_token)
            for engine in self._engines.values()
        }

    def join(self, name: str, known: Known) -> None:
        """Take in a replica and what it knows of sessions. Mutates."""
        now_s = monotonic()
        self._replicas.setdefault(name, _Replica(now_s)).heard_s = now_s
        for key, origin in reversed(known.origins):  # the last sent is noted last
            self._told.note(key, origin._replace(sent_s=now_s - origin.sent_s))
        for each in known.answers:
            self._answered(each)

    def forget_silent(self, now_s: float) -> None:
        """End the requests of replicas that are dead. Mutates."""
        for name, replica in list(self._replicas.items()):
            if now_s - replica.heard_s > self._silent_s:
                num_open = len(replica.requests)
                logger.warning("replica %s is silent; its %d requests are over", name, num_open)
                del self._replicas[name]
                for number in list(replica.requests):
                    self._end(replica, number)

    def replica_metrics(self) -> dict[str, str]:
        """The counts of each replica, in Prometheus' text format. Pure."""
        return {name: replica.metrics for name, replica in self._replicas.items()}

    def state(self) -> dict[str, Any]:
        """The state of engines, sessions, tenants and replicas, for operators. Pure."""
        replicas = [
            {"name": name, "requests": len(replica.requests)}
            for name, replica in self._replicas.items()
        ]
        return self._coordinator.state() | {"replicas": replicas}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.forget_silent(monotonic())

    def _told_of(self, asked: Asked) -> tuple[Engine, int] | None:
        """Where a session that this owner has not seen was sent before it."""
        placements = self._coordinator.dispatcher.placements
        if not asked.path or placements.origin(asked.session_id, asked.path) is not None:
            return None
        found = self._told.find(asked.keys(), monotonic())
        engine = None if found is None else self._engines.get(found.engine)
        return None if found is None or engine is None else (engine, found.num_bytes)

    def _take_in(self, replica: _Replica, event: Event) -> None:
        match event:
            case Started(number):
                if request := replica.requests.get(number):
                    self._coordinator.started(request.placed)
            case Ended(number, tail):
                self._end(replica, number, tail)
            case TokensCounted(name, prompt_bytes, prompt_tokens):
                if engine := self._engines.get(name):
                    self._coordinator.learn_tokens(engine, prompt_bytes, prompt_tokens)
            case Answered():
                self._answered(event)
            case EngineLost(name, is_dead):
                if engine := self._engines.get(name):
                    (self._coordinator.lost if is_dead else self._coordinator.pass_by)(engine)

    def _answered(self, answered: Answered) -> None:
        if engine := self._engines.get(answered.engine):
            self._coordinator.answered(answered.answer_id, engine, answered.tenant)

    def _end(self, replica: _Replica, number: int, tail: AnswerTail = _UNKNOWN) -> None:
        request = replica.requests.pop(number, None)
        if request is not None:
            request.waiting.cancel()
            self._coordinator.ended(request.placed, tail)
