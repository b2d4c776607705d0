"""The gateway's decisions without its I/O: where each request goes, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from holdfast.core.identity import Identity
from holdfast.core.tenants import Fairness, Tenants
from holdfast.gateway.admission import EngineAdmission
from holdfast.gateway.engines import Engine
from holdfast.gateway.placement import Placement, Placements
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.sessions_in_use import PlacedSession
from holdfast.policies.routers.kv_routing import KvRouting
from holdfast.policies.routing import (
    EngineLost,
    FirstToken,
    RequestEnded,
    RoutedRequest,
    RoutingPolicy,
)
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["DEFAULT_ADMISSION", "Dispatcher"]

DEFAULT_ADMISSION: Final = "working-set"

Told = TypeVar("Told")


@dataclass(slots=True)
class _Open:
    """A request between its placement and its end.

    Attributes:
        engine: Where it is or goes.
        missing_bytes: Prompt bytes that the engine has still to compute (bytes).
        admission: Of the engine, if the gateway admits there.
        routed: The request as the routing policy saw it.
        session: Its session.
        is_taken: Whether `take` has named it.
    """

    engine: Engine
    missing_bytes: int
    admission: EngineAdmission | None
    routed: RoutedRequest
    session: PlacedSession
    is_taken: bool = False


class Dispatcher:
    """Places requests, and holds them where an engine has no space for their sessions.

    A host calls `place` for a request, sends it when `take` names it, and reports what
    follows. After each report it asks `take` again, and at `next_s` at the latest.

    Not thread-safe.

    Args:
        engines: All engines.
        lease_s: Sessions idle for longer count as gone (s, > 0).
        max_wait_ratio: Wait bound of held requests; see `EngineAdmission`. None holds nothing.
        routing: Chooses engines; None takes `KvRouting`.
        admission: Name of the policy that admits turns to engines.
        fairness: How tenants share the engines to which turns are admitted.
        on_failure: Called where that policy has raised, before nothing is held any more; None lets
            its error pass.

    Attributes:
        placements: Sessions and their engines.
        tenants: Who has been served how much, by all engines together.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        lease_s: float = 1800.0,
        max_wait_ratio: float | None = 2.0,
        routing: RoutingPolicy | None = None,
        admission: str = DEFAULT_ADMISSION,
        fairness: Fairness | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._routing = routing or KvRouting()
        self.placements = Placements(engines, self._routing, lease_s)
        self._lease_s = lease_s
        self._max_wait_ratio = max_wait_ratio
        self._policy = admission
        self.tenants = Tenants(fairness)
        self._on_failure = on_failure
        self._admissions: dict[Engine, EngineAdmission] = {}
        self._open: dict[str, _Open] = {}
        self._ready: list[str] = []

    def place(
        self,
        request_id: str,
        session_id: str | None,
        path: PromptPath,
        now_s: float,
        *,
        tenant: str = "",
        client: str | None = None,
        without: Collection[Engine] = (),
        where: Engine | None = None,
        told: tuple[Engine, int] | None = None,
    ) -> Placement:
        """Choose a request's engine; `take` says when it is sent. Mutates.

        Args:
            request_id: Unique among open requests.
            session_id: As for `Placements.place`.
            path: The prompt; empty where there is none.
            now_s: Time now (s, monotonic).
            tenant: Whose request it is.
            client: As for `Placements.place`.
            without: Engines that have just failed.
            where: The engine that must answer, if only one can.
            told: As for `Placements.place`.

        Raises:
            EndpointError: All engines have just failed.
        """
        placement = self.placements.place(
            session_id, path, now_s, without, where, tenant=tenant, client=client, told=told
        )
        engine = placement.engine
        admission = self._admission_of(engine) if path else None
        about = placement.routed, placement.session
        self._open[request_id] = _Open(engine, placement.missing_bytes, admission, *about)
        engine.num_in_flight += 1
        engine.queued_bytes += placement.missing_bytes
        # At once: what comes now and shares the beginning belongs there too.
        engine.residency.add(path)
        identity = Identity(placement.session.name, tenant=tenant)
        if placement.origin is not None and placement.origin is not engine:
            left = self._admissions.get(placement.origin)
            if left is not None:
                self._tell(partial(left.gone, identity))
        if admission is None:
            self._ready.append(request_id)
        else:
            reported = partial(engine.num_reported, placement.session.key)
            self._tell(partial(admission.arrived, request_id, path, identity, now_s, reported))
        return placement

    def take(self, now_s: float) -> list[str]:
        """Return the requests to send now, in this order. Mutates."""
        taken: list[str] = []
        for admission in list(self._admissions.values()):
            for request_id in self._tell(partial(admission.take, now_s)) or ():
                self._open[request_id].is_taken = True
                taken.append(request_id)
        ready, self._ready = self._ready, []
        for request_id in ready:
            if request_id in self._open:
                self._open[request_id].is_taken = True
        return ready + taken

    def next_s(self, now_s: float) -> float:
        """When to ask `take` again without a report (s); inf while nothing is held. Pure."""
        return min((each.next_s(now_s) for each in self._admissions.values()), default=math.inf)

    def started(self, request_id: str, now_s: float) -> None:
        """Take in the first token of an answer: the prompt is computed. Mutates."""
        each = self._open[request_id]
        each.engine.queued_bytes -= each.missing_bytes
        each.missing_bytes = 0
        self._routing.observe(FirstToken(each.routed, each.engine.name, now_s))
        if each.admission is not None:
            self._tell(partial(each.admission.started, request_id, now_s))

    def ended(
        self,
        request_id: str,
        now_s: float,
        output_tokens: int | None = None,
        end: TurnEnd | None = None,
    ) -> None:
        """Take in that a request is over, however it ended. Mutates.

        Args:
            request_id: The request.
            now_s: Time now (s, monotonic).
            output_tokens: Length of its answer; None if it is not known.
            end: What ended its turn, if known.
        """
        each = self._open.pop(request_id)
        each.engine.num_in_flight -= 1
        each.engine.queued_bytes -= each.missing_bytes
        self.placements.ended(each.session, now_s)
        self._routing.observe(RequestEnded(each.routed, each.engine.name, now_s))
        if each.admission is not None:
            self._tell(partial(each.admission.ended, request_id, now_s, output_tokens, end))

    def learn_tokens(self, engine: Engine, prompt_bytes: int, prompt_tokens: int) -> None:
        """Learn how many bytes a token has, from one prompt. Mutates."""
        engine.learn_tokens(prompt_bytes, prompt_tokens)
        admission = self._admissions.get(engine)
        if admission is not None:
            admission.learn_bytes_per_token(engine.bytes_per_token)

    def lost(self, engine: Engine) -> None:
        """Take in that an engine is down or has restarted: its cache is empty. Mutates.

        What is held for it may go, and finds another engine.
        """
        engine.residency.clear()
        if engine.events is not None:
            engine.events.clear()
        self._routing.observe(EngineLost(engine.name))
        admission = self._admissions.pop(engine, None)
        if admission is not None:
            self._ready += admission.held

    @property
    def holds(self) -> bool:
        """Whether requests are held where an engine has no space."""
        return self._max_wait_ratio is not None

    def held(self, engine: Engine) -> tuple[int, int]:
        """Requests held for an engine, and the tokens that they would fill (counts). Pure."""
        admission = self._admissions.get(engine)
        return (0, 0) if admission is None else (len(admission.held), admission.held_tokens)

    def _tell(self, report: Callable[[], Told]) -> Told | None:
        """Report to an admission; if its policy fails, nothing is held from then on."""
        try:
            return report()
        except Exception:
            if self._on_failure is None:
                raise
            self._on_failure()
        self._max_wait_ratio = None
        self._admissions.clear()
        known = set(self._ready)
        for request_id, each in self._open.items():
            each.admission = None
            if not each.is_taken and request_id not in known:
                self._ready.append(request_id)
        return None

    def _admission_of(self, engine: Engine) -> EngineAdmission | None:
        """Admission to an engine; None while its size is unknown, or if it admits itself."""
        if self._max_wait_ratio is None or engine.admits or engine.kv_tokens is None:
            return None
        found = self._admissions.get(engine)
        if found is None:
            found = self._admissions[engine] = EngineAdmission(
                engine.kv_tokens,
                engine.bytes_per_token,
                self._max_wait_ratio,
                self._lease_s,
                self._policy,
                self.tenants,
            )
        return found
