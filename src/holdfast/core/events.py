"""Events: frozen, timestamped facts about turns and sessions, for policies."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.session import Session
from holdfast.core.turn import Turn

__all__ = [
    *("Event", "IntervalPassed", "PauseExplained", "RescoreBegun"),
    *("SessionClosed", "SessionForgotten", "SubAgentsChanged"),
    *("TurnArrived", "TurnEnded", "TurnPreempted", "TurnStarted"),
    "WorkflowEnded",
]


@dataclass(frozen=True, slots=True)
class _TurnEvent:
    """An event of one turn.

    Attributes:
        time_s: When (s, host's monotonic clock).
        turn: The turn.
    """

    time_s: float
    turn: Turn


@dataclass(frozen=True, slots=True)
class _SessionEvent:
    """An event of one session.

    Attributes:
        time_s: When (s, host's monotonic clock).
        session: The session.
    """

    time_s: float
    session: Session


class TurnArrived(_TurnEvent):
    """A session has sent its next prompt; the turn waits."""

    __slots__ = ()


class TurnStarted(_TurnEvent):
    """The engine has started an admitted turn."""

    __slots__ = ()


class TurnPreempted(_TurnEvent):
    """The engine has preempted a turn; it waits, `TurnStarted` follows again."""

    __slots__ = ()


class TurnEnded(_TurnEvent):
    """An answer is complete or aborted; `PauseExplained` follows."""

    __slots__ = ()


class PauseExplained(_SessionEvent):
    """What ended the last turn is known, or known better; may repeat for one pause."""

    __slots__ = ()


class SessionClosed(_SessionEvent):
    """The session will not return, as far as is known."""

    __slots__ = ()


class SubAgentsChanged(_SessionEvent):
    """Sub-agents that a session waits for have been called, have begun or have ended."""

    __slots__ = ()


class SessionForgotten(_SessionEvent):
    """The session leaves the books; no later event mentions it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _ClockEvent:
    """An event of no turn and no session.

    Attributes:
        time_s: When (s, host's monotonic clock).
    """

    time_s: float


class IntervalPassed(_ClockEvent):
    """The time has passed that an admission policy asks for; a step begins."""

    __slots__ = ()


class RescoreBegun(_ClockEvent):
    """All idle sessions are about to be rescored, as an eviction policy asks."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class WorkflowEnded(_ClockEvent):
    """The application has ended a workflow; its id is unique within the tenant."""

    tenant: str
    workflow_id: str


Event = (
    TurnArrived | TurnStarted | TurnPreempted | TurnEnded | PauseExplained | SessionClosed
    | SessionForgotten | SubAgentsChanged | IntervalPassed | RescoreBegun | WorkflowEnded
)  # fmt: skip
