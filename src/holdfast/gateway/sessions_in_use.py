"""Which placed sessions count as in use, and what they hold on each engine."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from holdfast.gateway.engines import Engine
from holdfast.predict.features import UNKNOWN_GAP
from holdfast.predict.return_time import ReturnTimeModel

__all__ = ["PlacedSession", "SessionKey", "SessionsInUse"]

SessionKey = bytes | str

_GONE_QUANTILE: Final = 0.98
_GAPS_A_LOOK: Final = 16  # a quantile costs more than the decision that it is for


@dataclass(slots=True, eq=False)
class PlacedSession:
    """A session that the gateway has placed.

    Attributes:
        key: Its id, or what stands for it without one.
        engine: Where it is.
        num_bytes: Length of its last prompt (bytes).
        leaf: Key of the last piece of its last prompt.
        used_s: When its last request came (s, monotonic).
        num_open: Its requests that have not ended (count).
        paused_at_s: When the last of them ended (s, monotonic); None before.
    """

    key: bytes | str
    engine: Engine
    num_bytes: int = 0
    leaf: bytes = b""
    used_s: float = 0.0
    num_open: int = 0
    paused_at_s: float | None = None

    @property
    def name(self) -> str:
        """Its key as text."""
        return self.key if isinstance(self.key, str) else self.key.hex()


class SessionsInUse:
    """Counts what sessions hold on each engine while they are likely to go on.

    Few clients say that a session has ended. So one whose pause outlasts 98 % of those that ended
    with a return counts no more, until it returns; what it holds is evicted before others' blocks.

    """

    def __init__(self) -> None:
        self._num_bytes: Counter[Engine] = Counter()
        self._counted: dict[PlacedSession, tuple[Engine, int]] = {}
        self._paused: OrderedDict[PlacedSession, float] = OrderedDict()
        self._returns = ReturnTimeModel()
        self._gone_s = math.inf
        self._num_gaps = 0

    def num_bytes(self, engine: Engine) -> int:
        """Prompt bytes of the sessions in use on an engine (bytes). Pure."""
        return self._num_bytes[engine]

    def placed(self, session: PlacedSession, now_s: float) -> None:
        """Count a session's new request, and learn from the pause before it. Mutates both."""
        if session.paused_at_s is not None and not session.num_open:
            self._learn(now_s - session.paused_at_s)
        session.num_open += 1
        self.forget(session)
        self._counted[session] = session.engine, session.num_bytes
        self._num_bytes[session.engine] += session.num_bytes

    def ended(self, session: PlacedSession, now_s: float) -> None:
        """Take in that a request of a session has ended. Mutates both."""
        session.num_open -= 1
        session.paused_at_s = now_s
        if not session.num_open and session in self._counted:
            self._paused[session] = now_s

    def forget(self, session: PlacedSession) -> None:
        """Count a session no more. Mutates."""
        self._paused.pop(session, None)
        if counted := self._counted.pop(session, None):
            engine, num_bytes = counted
            self._num_bytes[engine] -= num_bytes

    def settle(self, now_s: float) -> None:
        """Count sessions no more whose pauses outlast nearly all others. Mutates."""
        while self._paused:
            session, paused_at_s = next(iter(self._paused.items()))
            if now_s - paused_at_s <= self._gone_s:
                break
            self.forget(session)

    def _learn(self, gap_s: float) -> None:
        self._returns.observe(UNKNOWN_GAP, gap_s)
        self._num_gaps += 1
        if self._num_gaps % _GAPS_A_LOOK == 0:
            self._gone_s = self._returns.residual_quantile_s(UNKNOWN_GAP, 0.0, _GONE_QUANTILE)
