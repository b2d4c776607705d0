"""Asks the owner of decisions for a replica, and decides while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from time import monotonic
from typing import Any, Final, TypeVar

import aiohttp
from prometheus_client import generate_latest

from holdfast.core.opening_message import opening_message
from holdfast.core.request_body import RequestBody
from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.coordinator import Asked, Placed
from holdfast.gateway.engines import Engine
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.owner_messages import (
    Answered,
    Ended,
    EngineLost,
    Event,
    Known,
    OwnerLink,
    Refused,
    Report,
    Sent,
    Started,
    TokensCounted,
)
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.sessions_in_use import SessionKey
from holdfast.gateway.shared_origins import Origin, OriginTable, hashed_choice

__all__ = ["RemoteCoordinator"]

Told = TypeVar("Told")

logger = logging.getLogger(__name__)

_BEAT_S: Final = 1.0
_AWAY_S: Final = 2.0
_METRICS_S: Final = 5.0
_MOST_TOLD: Final = 20_000
_MOST_ANSWERS: Final = 10_000
_AWAY_TEXT: Final = (
    "the owner of placements does not answer; until it does, sessions go where consistent hashing "
    "puts them and no turn is held"
)


class RemoteCoordinator:
    """Asks the owner where requests go; goes by consistent hashing while it is away.

    Then nothing is held, a session that this replica has sent before stays where it is, and others
    go where rendezvous hashing puts them, on which all replicas agree.

    Not thread-safe.

    Args:
        replica: Name of this replica, unique.
        engines: The engines; kept up to date by the owner.
        link: Reaches the owner.
        lease_s: Sessions idle for longer count as gone (s).
        metrics: This replica's counts, which the owner is told.
        beat_s: Longest time between reports (s).
        away_s: Without an answer to a report for so long, the owner is away (s).
    """

    def __init__(
        self,
        replica: str,
        engines: Sequence[Engine],
        link: OwnerLink,
        lease_s: float,
        metrics: GatewayMetrics,
        beat_s: float = _BEAT_S,
        away_s: float = _AWAY_S,
    ) -> None:
        self._replica = replica
        self._engines = {engine.name: engine for engine in engines}
        self._link = link
        self._metrics = metrics
        self._beat_s, self._away_s = beat_s, away_s
        self._next_number = 0
        self._open: set[int] = set()
        self._events: list[Event] = []
        self._origins = OriginTable(lease_s)
        self._answers: OrderedDict[str, Answered] = OrderedDict()
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._metrics_at_s = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the owner does not answer."""
        return self._left.is_set()

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Report to the owner until cancelled."""
        del client
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._beat_s)
            self._wake.clear()
            if not await self._reported():
                await asyncio.sleep(self._beat_s)

    async def place(self, asked: Asked) -> Placed:
        """Choose a request's engine and wait for space. Mutates; `ended` must follow.

        Raises:
            Refusal: No engine may answer it.
        """
        number = self._new_number()
        try:
            reply = await self._reply(number, asked)
            if isinstance(reply, Refused):
                raise Refusal(*reply)
            if reply is None:
                self._over(number)  # the owner may have counted it
                number = self._new_number()
                reply = self._choice(number, asked)
                self._metrics.placed_alone.inc()
        except BaseException:
            self._over(number)
            raise
        if asked.path:
            origin = Origin(reply.engine, asked.num_bytes(), monotonic())
            self._origins.note(asked.keys()[0], origin)
        return Placed(
            *(str(number), self._engines[reply.engine], reply.reason, reply.missing_bytes),
            *(reply.session_key, reply.elsewhere_ratio),
        )

    async def admitted(self, placed: Placed) -> None:
        """Return at once: `place` has waited."""

    def started(self, placed: Placed) -> None:
        """Take in the first token of an answer. Mutates."""
        self._tell(Started(int(placed.request_id)))

    def ended(self, placed: Placed, tail: AnswerTail) -> None:
        """Take in that a request is over, however it ended. Mutates."""
        number = int(placed.request_id)
        self._tell(Ended(number, tail))
        self._over(number)

    def learn_tokens(self, engine: Engine, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn how many bytes a token has, from one prompt. Mutates."""
        self._tell(TokensCounted(engine.name, prompt_bytes, prompt_tokens))

    def answered(self, answer_id: str, engine: Engine, tenant: str) -> None:
        """Take in that an engine has stored a tenant's answer. Mutates."""
        answered = self._answers[answer_id] = Answered(answer_id, engine.name, tenant)
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        self._tell(answered)

    def lost(self, engine: Engine) -> None:
        """Take in that an engine cannot be reached; what it held is lost. Mutates."""
        engine.is_up = False
        self._tell(EngineLost(engine.name, is_dead=True))

    def pass_by(self, engine: Engine) -> None:
        """Send nothing to an engine before it answers a probe. Mutates.

        A busy one keeps what it holds.
        """
        engine.is_up = False
        self._tell(EngineLost(engine.name, is_dead=False))

    def state(self) -> dict[str, Any]:
        """What this replica knows, for operators. Pure."""
        engines = [{"name": each.name, "up": each.is_up} for each in self._engines.values()]
        return {"replica": self._replica, "owner_away": self.is_away, "engines": engines}

    # The owner.

    async def _reply(self, number: int, asked: Asked) -> Sent | Refused | None:
        """The owner's answer; None while it is away."""
        if self.is_away:
            return None
        question = asked._replace(body=b"")
        try:
            for _ in range(2):
                reply = await self._waited(self._link.place(self._replica, number, question))
                if reply is not None:
                    return reply
                await self._waited(self._join())
        except _OwnerAwayError:
            pass
        except Exception:
            if not self.is_away:
                logger.exception(_AWAY_TEXT)
            self._left.set()
        return None

    async def _waited(self, call: Awaitable[Told]) -> Told:
        """What a call gives, unless the owner leaves meanwhile."""
        answer = asyncio.ensure_future(call)
        leaving = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _OwnerAwayError
            return answer.result()
        finally:
            leaving.cancel()
            answer.cancel()

    async def _reported(self) -> bool:
        """Report once; whether the owner answered. Mutates."""
        events, self._events = tuple(self._events), []
        report = Report(self._next_number, frozenset(self._open), events, self._due_metrics())
        try:
            async with asyncio.timeout(self._away_s):
                seen = await self._link.report(self._replica, report)
                if seen is None:
                    await self._join()
        except Exception:
            if not self.is_away:
                logger.exception(_AWAY_TEXT)
            self._left.set()
            return False
        if self.is_away:
            logger.warning("the owner of placements answers again")
        self._left.clear()
        for name, (is_up, bytes_per_token) in (seen or {}).items():
            engine = self._engines[name]
            engine.is_up, engine.bytes_per_token = is_up, bytes_per_token
        return True

    async def _join(self) -> None:
        origins = tuple(self._origins.recent(_MOST_TOLD, monotonic()))
        await self._link.join(self._replica, Known(origins, tuple(self._answers.values())))
        self._wake.set()

    def _due_metrics(self) -> str | None:
        now_s = monotonic()
        if now_s < self._metrics_at_s:
            return None
        self._metrics_at_s = now_s + _METRICS_S
        return generate_latest(self._metrics.registry).decode()

    def _tell(self, event: Event) -> None:
        if not self.is_away:
            self._events.append(event)
            self._wake.set()

    # Requests.

    def _new_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        self._open.add(number)
        return number

    def _over(self, number: int) -> None:
        self._open.discard(number)
        self._wake.set()

    def _choice(self, number: int, asked: Asked) -> Sent:
        """The engine of a request while the owner is away.

        Raises:
            Refusal: No engine is reachable, or it names another tenant's answer.
        """
        untried = [each for name, each in self._engines.items() if name not in asked.without]
        able = [each.name for each in untried if each.is_up] or [each.name for each in untried]
        if not able:
            raise Refusal(503, "no engine is reachable; the gateway goes on trying")
        answered = self._answers.get(asked.answer_id or "")
        if answered is not None and answered.tenant != asked.tenant:
            raise Refusal(404, f"there is no answer {asked.answer_id}")
        keys = asked.keys()
        origin = self._origins.find(keys, monotonic())
        num_bytes = asked.num_bytes()
        key = keys[0] if keys else b""
        if answered is not None and answered.engine in able:
            return Sent(answered.engine, "origin", num_bytes, key, 0.0)
        if origin is not None and origin.engine in able:
            missing_bytes = max(num_bytes - origin.num_bytes, 0)
            return Sent(origin.engine, "origin", missing_bytes, key, 0.0)
        name = hashed_choice(_stream_key(number, asked), able)[0]
        return Sent(name, "hash", num_bytes, key, 0.0)


class _OwnerAwayError(Exception):
    """The owner has stopped answering."""


def _stream_key(number: int, asked: Asked) -> SessionKey:
    """What all turns of a stream share: its id, else its first message of a user."""
    if asked.session_id is not None:
        return asked.session_id
    body = RequestBody.parse(asked.body) if asked.path else None
    opening = None if body is None else opening_message(body)
    if opening is not None:
        return f"{asked.tenant}\x00{opening}"
    return asked.path.keys[0] if asked.path else str(number)
