"""A line of the decision log: why tokens of one turn's prompt were missing."""

from __future__ import annotations

import msgspec

from holdfast.core.miss import Attribution

__all__ = ["EvictionRecord", "MissRecord", "eviction_record"]


class EvictionRecord(msgspec.Struct, frozen=True):
    """The eviction of the first missing token's block.

    Attributes:
        reason: State of the sessions that used it; see `Victim`.
        ago_s: Time since then (s).
        idle_s: How long its session had been idle (s); None if it was not.
        expected_s: Time from then until the session was expected back (s); None if unknown.
        session: Number of the session that used it; None if several did, or none.
        taken_by: Number of the session whose turn needed the blocks; None if answers grew.
    """

    reason: str
    ago_s: float
    idle_s: float | None = None
    expected_s: float | None = None
    session: int | None = None
    taken_by: int | None = None


def eviction_record(attribution: Attribution, now_s: float) -> EvictionRecord | None:
    """The eviction of a turn's first missing block; None if it was not evicted. Pure."""
    eviction = attribution.known.eviction
    if eviction is None:
        return None
    return EvictionRecord(
        *(eviction.reason, now_s - eviction.at_s, eviction.idle_s, attribution.expected_s),
        *(eviction.session, eviction.taken_by),
    )


class MissRecord(msgspec.Struct, frozen=True):
    """One turn; see `Attribution`.

    Attributes:
        time_s: When it ended (s, the machine's monotonic clock).
        engine: Number of the engine.
        pid: Its process.
        session: Number of its session, unique in a process.
        turn: Number of the session's turn.
        request: Id of the request.
        session_id: The session's id, as its client named it.
        cache_tokens: Tokens that the KV cache holds (count).
        prompt_tokens: Tokens of the prompt (count).
        cached_tokens: Those that the engine had (count).
        missed: Missing tokens by reason (counts).
        lost_s: Engine time to compute avoidable ones, by reason (s).
        mutated_at_tokens: Leading tokens that the prompt shares with the session's last one.
        against_turn: The turn that it is compared with.
        evicted: The eviction of the first missing token's block.
        waited_s: Time from its arrival to its start (s).
        delayed_by: What it waited for last, see `DelayReason`; "" if it started at once.
        change: What changed in the prompt since the session's last one; see `CHANGES`.
    """

    time_s: float
    session: int
    turn: int
    prompt_tokens: int
    cached_tokens: int
    missed: dict[str, int]
    engine: int = 0
    pid: int = 0
    request: str = ""
    session_id: str | None = None
    cache_tokens: int = 0
    lost_s: dict[str, float] = msgspec.field(default_factory=dict)
    mutated_at_tokens: int | None = None
    against_turn: int | None = None
    evicted: EvictionRecord | None = None
    waited_s: float = 0.0
    delayed_by: str = ""
    change: str | None = None

    @property
    def stream(self) -> tuple[int, int, int]:
        """Identifies the session among those of several engines."""
        return self.pid, self.engine, self.session
