"""What admission decides with, the budget, and what it decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from holdfast.core.session import Session
from holdfast.core.turn import Turn

__all__ = ["Admission", "Budget", "admit_while_they_fit"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What the engine can still give away. Asking changes nothing.

    Attributes:
        now_s: Time of the decision (s, host's clock).
        blocks: Free blocks without a reservation that no running turn grows into (count; may be
            < 0).
        growth_blocks: Free blocks that running turns are expected to grow into; not in `blocks`
            (count).
        slots: Turns that may still start (count).
        num_running: Turns running now (count).
        restore_s: Engine time to restore a session's last so many blocks (s).
        reservations: Idle sessions with a reservation, the least urgent first, then the longest
            idle.
        freed_by: Blocks that become free for others when a session loses its reservation (count).
    """

    now_s: float
    blocks: int
    slots: int
    num_running: int
    restore_s: Callable[[Session, int], float]
    reservations: Callable[[], Sequence[Session]]
    freed_by: Callable[[Session], int]
    growth_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """One decision.

    Attributes:
        admitted: Turns that the engine may start now, in this order.
        released: Sessions that lose their reservation.
        lacking: Turns that were looked at and found too few blocks, in order of admission; the
            others that wait come after one of them, or had no slot.
    """

    admitted: Sequence[Turn] = ()
    released: Sequence[Session] = ()
    lacking: Sequence[Turn] = ()


def admit_while_they_fit(
    turns: Iterable[Turn], budget: Budget, released: Sequence[Session] = ()
) -> Admission:
    """Admit turns in the given order until one does not fit. Pure.

    The first is admitted in any case while nothing runs.

    Args:
        turns: Waiting turns.
        budget: What there is.
        released: Sessions that lose their reservation first.
    """
    blocks = budget.blocks + sum(budget.freed_by(session) for session in released)
    admitted: list[Turn] = []
    lacking: list[Turn] = []
    for turn in turns:
        is_idle = not budget.num_running and not admitted
        if turn.demand_blocks > blocks and not is_idle:
            lacking.append(turn)
            break
        blocks -= turn.demand_blocks
        admitted.append(turn)
    return Admission(admitted, released, lacking)
