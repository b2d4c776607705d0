"""Answers of an engine's control routes, as commands read them.

What a version does not send keeps its default; what it sends beyond that is ignored.
"""

from __future__ import annotations

import msgspec

from holdfast.core.miss_record import EvictionRecord

__all__ = [
    *("SeenCosts", "SeenEngine", "SeenMiss", "SeenSession", "SeenStart", "SeenState", "SeenWait"),
]


class SeenWait(msgspec.Struct, frozen=True):
    """What a paused session waits for; see the control routes."""

    kind: str = ""
    tool: str = ""
    idle_s: float = 0.0
    expected_s: float = 0.0
    result_known: bool = False


class SeenStart(msgspec.Struct, frozen=True):
    """Why a waiting turn has not started; see the control routes."""

    reason: str = ""
    waited_s: float = 0.0
    due_s: float | None = None
    needed_blocks: int = 0
    free_blocks: int = 0
    first_session: int | None = None


class SeenMiss(msgspec.Struct, frozen=True):
    """One of a session's last turns, and why tokens of its prompt were missing."""

    turn: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    missed: dict[str, int] = {}
    lost_s_by: dict[str, float] = {}
    evicted: EvictionRecord | None = None
    output_tokens: int = 0
    gap_s: float = 0.0
    waited_s: float = 0.0
    delayed_by: str = ""
    change: str | None = None


class SeenSession(msgspec.Struct, frozen=True):
    """One session, as the control routes have it; unknown fields are ignored."""

    number: int = 0
    session_id: str | None = None
    agent_id: str | None = None
    client: str = ""
    state: str = ""
    num_turns: int = 0
    context_blocks: int = 0
    resident_blocks: int = 0
    has_reservation: bool = False
    waits_for: SeenWait | None = None
    starts_after: SeenStart | None = None
    last_miss: SeenMiss | None = None
    last_misses: list[SeenMiss] = []


class SeenCosts(msgspec.Struct, frozen=True):
    """What an engine's work takes (s), as it has learned; see `StepCosts`."""

    step_s: float = 0.0
    prefill_s_per_token: float = 0.0
    prefill_s_per_pair: float = 0.0
    decode_s: float = 0.0


class SeenEngine(msgspec.Struct, frozen=True):
    """An engine as a whole, as the control routes have it."""

    engine: int = 0
    is_active: bool = True
    policy: str = ""
    capacity_blocks: int = 0
    free_blocks: int = 0
    reserved_blocks: int = 0
    cache_tokens: int = 0
    block_tokens: int = 0
    kv_bytes_per_token: float = 0.0
    host_tokens: int = 0
    host_load_s_per_token: float | None = None
    max_running: int = 0
    max_step_tokens: int = 0
    costs: SeenCosts | None = None


class SeenState(msgspec.Struct, frozen=True):
    """One data-parallel engine's part of the answer of the control routes."""

    engine: SeenEngine = SeenEngine()
    sessions: list[SeenSession] = []
    next_after: int | None = None
