"""Chooses the engine of each request: where its session's KV blocks are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from holdfast.errors import EndpointError
from holdfast.gateway.engines import Engine
from holdfast.gateway.prompt_path import Piece

__all__ = ["PlacedSession", "Placement", "Placements", "Reason"]

Reason = Literal["origin", "moved", "prefix", "space", "only"]
"""Why an engine was chosen.

origin: the session's blocks are there. moved: its origin is down, or waiting there costs more than
computing the prompt elsewhere. prefix: a new session shares most there. space: a new session, where
the least is in use. only: no other engine is up.
"""

_MOST_SESSIONS: Final = 100_000


@dataclass(slots=True, eq=False)
class PlacedSession:
    """A session that the gateway has placed.

    Attributes:
        key: Its id, or what stands for it without one.
        engine: Where it is.
        num_bytes: Length of its last prompt (bytes).
        leaf: Key of the last piece of its last prompt.
        used_s: When its last request came (s, monotonic).
    """

    key: bytes | str
    engine: Engine
    num_bytes: int = 0
    leaf: bytes = b""
    used_s: float = 0.0


class Placement(NamedTuple):
    """Where a request goes.

    Attributes:
        engine: The engine.
        reason: Why.
        missing_bytes: Prompt bytes that it has to compute (bytes).
        session: Its session.
        origin: Where the session was before; None for a new one.
        elsewhere_ratio: Leading share of the prompt that another engine holds (0 to 1); 0 if none
            holds more of it than this one.
    """

    engine: Engine
    reason: Reason
    missing_bytes: int
    session: PlacedSession
    origin: Engine | None = None
    elsewhere_ratio: float = 0.0


class Placements:
    """Sessions and their engines; places requests and remembers where.

    A session of which nothing is remembered, as after a restart of the gateway, is where the KV
    events of an engine say that most of it is. A session returns to its origin unless the prompt
    bytes queued there, beside those that it has to compute itself, are more than on another engine,
    queue included: both are engine time in one unit. Where the other engine is full, what it has to
    compute counts twice, as it evicts as much of other sessions. A new session goes where the least
    is in use, less what its prompt shares there.

    Source: prefill blocks plus load as in Dynamo's KV router; sessions back to their origin as
    measured in llm-d.
    Differs: bytes of prompts instead of blocks; what other sessions hold counts for new sessions
    only, since a move costs the whole prompt.

    Args:
        engines: All engines.
        lease_s: Sessions idle for longer count as gone (s, > 0).
    """

    def __init__(self, engines: Sequence[Engine], lease_s: float = 1800.0) -> None:
        self._engines = engines
        self._lease_s = lease_s
        self._sessions: OrderedDict[bytes | str, PlacedSession] = OrderedDict()
        self._leaves: dict[bytes, PlacedSession] = {}
        self._in_use: dict[Engine, int] = dict.fromkeys(engines, 0)

    def __len__(self) -> int:
        """Sessions remembered (count)."""
        return len(self._sessions)

    def place(
        self,
        session_id: str | None,
        path: Sequence[Piece],
        now_s: float,
        without: Collection[Engine] = (),
        where: Engine | None = None,
    ) -> Placement:
        """Choose an engine and remember the session there. Mutates.

        Args:
            session_id: Explicit id of the stream, unique among tenants; None goes by the prompt.
            path: The prompt.
            now_s: Time now (s, monotonic).
            without: Engines that have just failed.
            where: The engine that must answer, as no other knows what the request refers to.

        Raises:
            EndpointError: No engine is up.
        """
        able = [engine for engine in self._engines if engine.is_up and engine not in without]
        if not able:
            raise EndpointError("no engine is reachable; the gateway goes on trying")
        self._forget_idle(now_s)
        session = self._find(session_id, path) or self._reported(session_id, able)
        num_bytes = sum(piece.num_bytes for piece in path)
        origin = None if session is None else session.engine
        missing = {each: num_bytes - self._num_resident(each, session, path) for each in able}
        if session is None:
            engine, reason = self._for_new(able, missing)
            key = session_id if session_id is not None else path[-1].key if path else b""
            session = PlacedSession(key, engine)
        else:
            engine, reason = self._for_known(session, able, missing)
        if where in able:
            engine, reason = where, "origin"
        elif len(able) == 1:
            reason = "only"
        session.used_s = now_s
        self._note(session, engine, num_bytes, path[-1].key if path else b"")
        least = min(missing.values())
        elsewhere = (num_bytes - least) / num_bytes if least < missing[engine] else 0.0
        return Placement(engine, reason, missing[engine], session, origin, elsewhere)

    def close(self, session_id: str) -> bool:
        """Forget a session that will not return; whether it was known. Mutates."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._forget(session)
        return session is not None

    def in_use_bytes(self, engine: Engine) -> int:
        """Prompt bytes of the sessions placed on an engine (bytes). Pure."""
        return self._in_use[engine]

    def _find(self, session_id: str | None, path: Sequence[Piece]) -> PlacedSession | None:
        if session_id is not None:
            return self._sessions.get(session_id)
        for piece in reversed(path):
            session = self._leaves.get(piece.key)
            if session is not None:
                return session
        return None

    def _num_resident(
        self, engine: Engine, session: PlacedSession | None, path: Sequence[Piece]
    ) -> int:
        """Leading bytes of a session's prompt that an engine has, as known."""
        if session is None or engine is not session.engine:
            return engine.num_resident(path, None)
        if session.key in self._sessions:
            return engine.num_resident(path, session.key)
        num_bytes = sum(piece.num_bytes for piece in path)
        return min(num_bytes, engine.num_reported(session.key) or 0)

    def _reported(self, session_id: str | None, able: Sequence[Engine]) -> PlacedSession | None:
        """A session of before the gateway's start, where an engine reports most of it."""
        if session_id is None:
            return None
        held = {engine: engine.num_reported(session_id) or 0 for engine in able}
        best = max(able, key=held.__getitem__)
        return PlacedSession(session_id, best) if held[best] else None

    def _for_known(
        self, session: PlacedSession, able: Sequence[Engine], missing: dict[Engine, int]
    ) -> tuple[Engine, Reason]:
        origin = session.engine

        def cost(engine: Engine) -> tuple[int, bool, int]:
            computed = missing[engine]
            if engine is not origin and self._is_full(engine, missing[engine]):
                computed *= 2
            return engine.queued_bytes + computed, engine is not origin, self._in_use[engine]

        best = min(able, key=cost)
        return best, "origin" if best is origin else "moved"

    def _is_full(self, engine: Engine, num_bytes: int) -> bool:
        """Whether so many bytes more evict what sessions there will ask for again."""
        capacity = engine.residency.capacity_bytes
        return capacity is not None and self._in_use[engine] + num_bytes > capacity

    def _for_new(self, able: Sequence[Engine], missing: dict[Engine, int]) -> tuple[Engine, Reason]:
        def cost(engine: Engine) -> tuple[int, int]:
            used = self._in_use[engine] + engine.queued_bytes
            return used + missing[engine], engine.num_in_flight

        best = min(able, key=cost)
        is_shared = missing[best] < max(missing.values())
        return best, "prefix" if is_shared else "space"

    def _note(self, session: PlacedSession, engine: Engine, num_bytes: int, leaf: bytes) -> None:
        self._forget(session)
        if known := self._sessions.get(session.key):
            self._forget(known)
        session.engine, session.num_bytes, session.leaf = engine, num_bytes, leaf
        self._sessions[session.key] = session
        self._leaves[leaf] = session
        self._in_use[engine] += num_bytes
        if len(self._sessions) > _MOST_SESSIONS:
            self._forget(next(iter(self._sessions.values())))

    def _forget_idle(self, now_s: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now_s - oldest.used_s <= self._lease_s:
                break
            self._forget(oldest)

    def _forget(self, session: PlacedSession) -> None:
        if self._sessions.get(session.key) is not session:
            return
        del self._sessions[session.key]
        self._in_use[session.engine] -= session.num_bytes
        if self._leaves.get(session.leaf) is session:
            del self._leaves[session.leaf]
