"""Result memory: a tool call that was made need not be made again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from holdfast.policies.calls import (
    AskedCall,
    CallAnswered,
    CallAsked,
    CallEvent,
    CallPolicy,
    KnownResult,
    ResultOutdated,
    SessionEnded,
)
from holdfast.policies.spec import PolicySettings, PolicySpec

__all__ = ["ResultMemory", "ResultMemorySettings"]


class ResultMemorySettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `ResultMemory`.

    Attributes:
        max_mib: Size of a session's results together, as JSON (MiB, > 0).
    """

    max_mib: Annotated[float, Meta(gt=0)] = 64.0


@dataclass(slots=True)
class _Results:
    """Results of one session, the longest unused first."""

    by_key: dict[str, KnownResult] = field(default_factory=dict)
    num_bytes: int = 0

    def add(self, known: KnownResult, max_bytes: float) -> None:
        self.drop(known.call.key)
        self.by_key[known.call.key] = known
        self.num_bytes += known.num_bytes
        while self.num_bytes > max_bytes:
            self.drop(next(iter(self.by_key)))

    def drop(self, key: str) -> None:
        known = self.by_key.pop(key, None)
        self.num_bytes -= known.num_bytes if known else 0


class ResultMemory(CallPolicy):
    """Keeps the results of each session, the latest used ones."""

    spec = PolicySpec(
        name="result-memory",
        summary="Answers a read-only tool call that was made before, until anything changes.",
        source="memoisation; MCP's tool annotations say what may be kept",
        settings=ResultMemorySettings,
    )

    def __init__(self, settings: ResultMemorySettings) -> None:
        super().__init__(settings)
        self._sessions: dict[int, _Results] = {}

    def observe(self, event: CallEvent) -> None:
        """Keep what may be recalled, and nothing from before a change. Mutates."""
        match event:
            case CallAsked(call) if call.is_change:
                self._sessions.pop(call.session, None)
            case CallAnswered(call, known=KnownResult() as known):
                results = self._sessions.setdefault(call.session, _Results())
                results.add(known, self.settings.max_mib * 2**20)
            case ResultOutdated(known) if self.recall(known.call) is known:
                self._sessions[known.call.session].drop(known.call.key)
            case SessionEnded(session):
                self._sessions.pop(session, None)

    def recall(self, call: AskedCall) -> KnownResult | None:
        """What an equal call of the session returned. Pure."""
        results = self._sessions.get(call.session)
        return results.by_key.get(call.key) if results else None
