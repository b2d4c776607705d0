"""How much work stands in the engine, and how long a turn that finds it there may be overtaken."""

from __future__ import annotations

from holdfast.core.turn import Turn

__all__ = ["WaitBound"]

_HALF_DONE = 0.5  # of a running turn's work, on average


class WaitBound:
    """The turns in the engine, as if every prompt had to be computed from nothing.

    Args:
        max_wait_ratio: Longest wait of a turn before nobody may overtake it any more, in units of
            the engine time of all it found ahead of it (> 0). At 1 that is about what it would
            have waited first come, first served, with a cache that thrashes.
    """

    def __init__(self, max_wait_ratio: float) -> None:
        self._max_wait_ratio = max_wait_ratio
        self._cold_s = 0.0

    def enter(self, turn: Turn, cold_s: float) -> None:
        """A turn has arrived: bound how long it may be overtaken. Mutates it.

        Args:
            turn: The turn.
            cold_s: Engine time of the turn, its whole prompt computed (s).
        """
        turn.cold_s = turn.outstanding_s = cold_s
        self._cold_s += cold_s
        turn.due_s = turn.arrived_s + self._max_wait_ratio * self._cold_s

    def start(self, turn: Turn) -> None:
        """The turn runs."""
        self._weigh(turn, _HALF_DONE * turn.cold_s)

    def put_back(self, turn: Turn) -> None:
        """The turn waits again."""
        self._weigh(turn, turn.cold_s)

    def leave(self, turn: Turn) -> None:
        """The turn has ended."""
        self._weigh(turn, 0.0)

    def clear(self) -> None:
        """No turn is in the engine."""
        self._cold_s = 0.0

    def _weigh(self, turn: Turn, outstanding_s: float) -> None:
        self._cold_s += outstanding_s - turn.outstanding_s
        turn.outstanding_s = outstanding_s
