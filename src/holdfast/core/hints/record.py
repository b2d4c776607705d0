"""The hints of one request, whatever its dialect, and the outcome of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from holdfast.core.prompt_change import ChangeKind
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["IDENTITY_FIELDS", "CacheCommand", "HintNote", "HintOutcome", "Hints"]

HintOutcome = Literal[
    "accepted",
    "clipped",
    "rejected",
    "granted",
    "refused",
    "lapsed",
    "distrusted",
    "applied",
    "missing",
]
"""The outcome of a hint.

When its request arrives it is `accepted`, `clipped` to a range, or `rejected` as unusable. Later a
retention is `granted`, `refused`, or has `lapsed` before its end; an expected gap is `distrusted`;
a command is `applied`, or its session is `missing`.
"""

IDENTITY_FIELDS: Final = ("session_id", "parent_session_id", "agent_id", "workflow_id")
"""Hints that say who sends a request."""


@dataclass(frozen=True, slots=True)
class CacheCommand:
    """What a client asks to be done with a session's blocks.

    Attributes:
        action: `evict`: they go before those of other sessions. `prefetch`: they are loaded from a
            lower tier ahead of the session's next turn. `retain`: they are kept for a time.
        session_id: A session of the same tenant; None is the request's own.
        retain_s: For `retain`: for how long (s).
    """

    action: Literal["evict", "prefetch", "retain"]
    session_id: str | None = None
    retain_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hints:
    """Hints of one request.

    Attributes:
        session_id: The request's session.
        parent_session_id: The session that spawned this one.
        agent_id: The agent that sends the request.
        turn_end: How this turn will end, announced in advance; replaces, once the turn has ended,
            the turn end read from its output.
        is_final: Whether the session ends with this turn.
        expected_gap_s: Length of the pause after this turn that the client expects (s).
        retain_s: Time after this turn for which the client asks to retain its cache (s).
        workflow_id: The workflow that the agent is a step of.
        wants_warm_ups: Whether predicted prompts like this one may be computed ahead.
        priority: Order among the tenant's own sessions, lower first; None if not given.
        fixed_prefix_tokens: Leading tokens of the prompt that all calls of its agent have (count).
        elsewhere_ratio: Leading share of the prompt that another engine has in its KV cache (0 to
            1), as the gateway says; None without one.
        prompt_change: What changed in the prompt since the session's last one, as the API server
            found; None if nothing.
        commands: What is to be done with blocks of this session, or of others of the tenant.
    """

    session_id: str | None = None
    parent_session_id: str | None = None
    agent_id: str | None = None
    turn_end: TurnEnd | None = None
    is_final: bool = False
    expected_gap_s: float | None = None
    retain_s: float | None = None
    workflow_id: str | None = None
    wants_warm_ups: bool = False
    priority: int | None = None
    fixed_prefix_tokens: int | None = None
    elsewhere_ratio: float | None = None
    prompt_change: ChangeKind | None = None
    commands: tuple[CacheCommand, ...] = ()


@dataclass(frozen=True, slots=True)
class HintNote:
    """The outcome of one hint.

    Attributes:
        field: Which attribute of `Hints` it is for.
        outcome: See `HintOutcome`.
        asked: Where it stood in the request, or what was asked.
        reason: Why it was not accepted as it is, or what was granted; may be "".
    """

    field: str
    outcome: HintOutcome
    asked: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.asked}: {self.reason}" if self.reason else self.asked
