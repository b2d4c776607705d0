"""Places requests as a routing policy says, and remembers sessions' engines."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from holdfast.errors import EndpointError
from holdfast.gateway.engines import Engine
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.sessions_in_use import PlacedSession, SessionsInUse
from holdfast.policies.routing import EngineView, RequestPlaced, RoutedRequest, RoutingPolicy

__all__ = ["Placement", "Placements"]

_MOST_SESSIONS: Final = 100_000


class Placement(NamedTuple):
    """Where a request goes.

    Attributes:
        engine: The engine.
        reason: Why; see `routing.REASONS`.
        missing_bytes: Prompt bytes that it has to compute (bytes).
        session: Its session.
        routed: The request as the routing policy saw it.
        origin: Where the session was before; None for a new one.
        elsewhere_ratio: Leading share of the prompt that another engine holds (0 to 1); 0 if none
            holds more of it than this one.
    """

    engine: Engine
    reason: str
    missing_bytes: int
    session: PlacedSession
    routed: RoutedRequest
    origin: Engine | None = None
    elsewhere_ratio: float = 0.0


class Placements:
    """Sessions and their engines; places requests and remembers where.

    A session of which nothing is remembered, as after a restart of the gateway, is where the KV
    events of an engine say that most of it is. The policy chooses, except where only one engine can
    answer.

    Args:
        engines: All engines; others may come and go.
        routing: Chooses among them.
        lease_s: Sessions idle for longer count as gone (s, > 0).
    """

    def __init__(
        self, engines: Sequence[Engine], routing: RoutingPolicy, lease_s: float = 1800.0
    ) -> None:
        self._engines = engines
        self._routing = routing
        self._lease_s = lease_s
        self._sessions: OrderedDict[bytes | str, PlacedSession] = OrderedDict()
        self._leaves: dict[bytes, PlacedSession] = {}
        self._in_use = SessionsInUse()

    def __len__(self) -> int:
        """Sessions remembered (count)."""
        return len(self._sessions)

    def place(
        self,
        session_id: str | None,
        path: PromptPath,
        now_s: float,
        without: Collection[Engine] = (),
        where: Engine | None = None,
        *,
        tenant: str = "",
        client: str | None = None,
        told: tuple[Engine, int] | None = None,
    ) -> Placement:
        """Choose an engine and remember the session there. Mutates.

        Args:
            session_id: Explicit id of the stream, unique among tenants; None goes by the prompt.
            path: The prompt.
            now_s: Time now (s, monotonic).
            without: Engines that have just failed.
            where: The engine that must answer, as no other knows what the request refers to.
            tenant: Whose request it is.
            client: What the policy knows the client by; None takes the session's own key.
            told: Where another gateway sent the session last, and the bytes of that prompt; None if
                none did.

        Raises:
            EndpointError: All engines have just failed.
        """
        able = self._able(without)
        self._forget_idle(now_s)
        self._in_use.settle(now_s)
        num_bytes = path.num_bytes
        key = session_id if session_id is not None else path.leaf
        session = self._find(session_id, path)
        session = self._moved(session, key, told) or self._reported(session_id, able)
        origin = None if session is None else session.engine
        missing = {each: num_bytes - self._num_resident(each, session, path) for each in able}
        if told is not None and told[0] in missing:
            missing[told[0]] = min(missing[told[0]], max(num_bytes - told[1], 0))
        if session is None:
            session = PlacedSession(key, able[0])
        name = session.name if client is None else client
        origin_name = None if origin is None else origin.name
        routed = RoutedRequest(name, tenant, num_bytes, origin_name, now_s)
        engine, reason = self._chosen(routed, able, missing, where)
        session.used_s = now_s
        self._note(session, engine, num_bytes, path.leaf)
        self._in_use.placed(session, now_s)
        least = min(missing.values())
        elsewhere = (num_bytes - least) / num_bytes if least < missing[engine] else 0.0
        self._routing.observe(RequestPlaced(routed, engine.name))
        return Placement(engine, reason, missing[engine], session, routed, origin, elsewhere)

    def ended(self, session: PlacedSession, now_s: float) -> None:
        """Take in that a request of a session has ended. Mutates."""
        self._in_use.ended(session, now_s)

    def origin(self, session_id: str | None, path: PromptPath) -> Engine | None:
        """Where a prompt's session is, as remembered; None if it is not. Pure."""
        session = self._find(session_id, path)
        return None if session is None else session.engine

    def close(self, session_id: str) -> bool:
        """Forget a session that will not return; whether it was known. Mutates."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._lose(session)
        return session is not None

    def in_use_bytes(self, engine: Engine) -> int:
        """Prompt bytes of the sessions in use on an engine (bytes). Pure."""
        return self._in_use.num_bytes(engine)

    def _able(self, without: Collection[Engine]) -> list[Engine]:
        """The engines that may be tried: those that are up.

        Where all seem to be down, one of them may be wrongly: it was busy, say.
        """
        untried = [engine for engine in self._engines if engine not in without]
        able = [engine for engine in untried if engine.is_up] or untried
        if not able:
            raise EndpointError("no engine is reachable; the gateway goes on trying")
        return able

    def _moved(
        self, session: PlacedSession | None, key: bytes | str, told: tuple[Engine, int] | None
    ) -> PlacedSession | None:
        """A session, where another gateway may have sent it. Mutates."""
        if told is None or (session is not None and session.engine is told[0]):
            return session
        if session is not None:
            self._forget(session)
        return PlacedSession(key, told[0])

    def _find(self, session_id: str | None, path: PromptPath) -> PlacedSession | None:
        if session_id is not None:
            return self._sessions.get(session_id)
        for key in reversed(path.keys):
            session = self._leaves.get(key)
            if session is not None:
                return session
        return None

    def _num_resident(self, engine: Engine, session: PlacedSession | None, path: PromptPath) -> int:
        """Leading bytes of a session's prompt that an engine has, as known."""
        if session is None or engine is not session.engine:
            return engine.num_resident(path, None)
        if session.key in self._sessions:
            return engine.num_resident(path, session.key)
        return min(path.num_bytes, engine.num_reported(session.key) or 0)

    def _reported(self, session_id: str | None, able: Sequence[Engine]) -> PlacedSession | None:
        """A session of before the gateway's start, where an engine reports most of it."""
        if session_id is None:
            return None
        held = {engine: engine.num_reported(session_id) or 0 for engine in able}
        best = max(able, key=held.__getitem__)
        return PlacedSession(session_id, best) if held[best] else None

    def _chosen(
        self,
        routed: RoutedRequest,
        able: Sequence[Engine],
        missing: dict[Engine, int],
        where: Engine | None,
    ) -> tuple[Engine, str]:
        """The engine of a request, and why."""
        if where is not None and where in able:
            return where, "origin"
        if len(able) == 1:
            return able[0], "only"
        views = [
            EngineView(
                *(each.name, each.num_in_flight, each.queued_bytes, missing[each]),
                *(self._in_use.num_bytes(each), each.residency.capacity_bytes),
            )
            for each in able
        ]
        name, reason = self._routing.route(routed, views)
        return next(each for each in able if each.name == name), reason

    def _note(self, session: PlacedSession, engine: Engine, num_bytes: int, leaf: bytes) -> None:
        self._forget(session)
        if known := self._sessions.get(session.key):
            self._forget(known)
        session.engine, session.num_bytes, session.leaf = engine, num_bytes, leaf
        self._sessions[session.key] = session
        self._leaves[leaf] = session
        if len(self._sessions) > _MOST_SESSIONS:
            self._lose(next(iter(self._sessions.values())))

    def _forget_idle(self, now_s: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now_s - oldest.used_s <= self._lease_s:
                break
            self._lose(oldest)

    def _lose(self, session: PlacedSession) -> None:
        """Forget a session that is not expected back, and tell the readers of events."""
        self._forget(session)
        for engine in self._engines:
            engine.forget(session.key)

    def _forget(self, session: PlacedSession) -> None:
        if self._sessions.get(session.key) is not session:
            return
        del self._sessions[session.key]
        self._in_use.forget(session)
        if self._leaves.get(session.leaf) is session:
            del self._leaves[session.leaf]
