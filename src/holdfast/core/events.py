"""Events: frozen, timestamped facts about turns and sessions, for policies."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.session import Session
from holdfast.core.turn import Turn

__all__ = ["Event", "PauseExplained", "SessionForgotten", "TurnArrived", "TurnEnded", "TurnStarted"]


@dataclass(frozen=True, slots=True)
class TurnArrived:
    """A session has sent its next prompt.

    Attributes:
        time_s: When (s, host's monotonic clock).
        turn: The turn, which waits.
    """

    time_s: float
    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The engine has started an admitted turn.

    Attributes:
        time_s: When (s, host's monotonic clock).
        turn: The turn, which runs.
    """

    time_s: float
    turn: Turn


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """An answer is complete or aborted; the turn's session pauses.

    Attributes:
        time_s: When (s, host's monotonic clock).
        turn: The turn. `PauseExplained` follows.
    """

    time_s: float
    turn: Turn


@dataclass(frozen=True, slots=True)
class PauseExplained:
    """What ended a session's last turn is known, or known better than before.

    Attributes:
        time_s: When (s, host's monotonic clock).
        session: The paused session; its `gap` has the news. The event may repeat for one pause.
    """

    time_s: float
    session: Session


@dataclass(frozen=True, slots=True)
class SessionForgotten:
    """A session leaves the books; no later event mentions it.

    Attributes:
        time_s: When (s, host's monotonic clock).
        session: The session.
    """

    time_s: float
    session: Session


Event = TurnArrived | TurnStarted | TurnEnded | PauseExplained | SessionForgotten
