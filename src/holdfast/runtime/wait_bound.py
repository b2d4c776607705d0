"""The wait bound: how long others may pass a turn, by work ahead or by an SLO."""

from __future__ import annotations

import math

from holdfast.core.turn import Turn

__all__ = ["WaitBound"]

_HALF_DONE = 0.5  # of a running turn's work, on average


class WaitBound:
    """Adds up the engine time of all turns in the engine, with all prompts computed.

    Args:
        max_wait_ratio: Longest wait of a turn before no turn may pass it, in units of the engine
            time of all that it found ahead of it (> 0). 1 is about what it would have waited first
            come, first served, with a cache that thrashes.
        ttft_target_s: Time to first token that the slowest turns should not exceed (s, > 0); a turn
            is due early enough to compute its whole prompt within it. None for none.
    """

    def __init__(self, max_wait_ratio: float, ttft_target_s: float | None = None) -> None:
        self._max_wait_ratio = max_wait_ratio
        self._ttft_target_s = math.inf if ttft_target_s is None else ttft_target_s
        self._cold_s = 0.0

    def enter(self, turn: Turn, cold_s: float) -> None:
        """Add a turn that has arrived, and bound its wait. Mutates it.

        Args:
            turn: The turn.
            cold_s: Engine time of the turn, its whole prompt computed (s).
        """
        turn.cold_s = turn.outstanding_s = cold_s
        self._cold_s += cold_s
        longest_s = max(self._ttft_target_s - cold_s, 0.0)
        turn.due_s = turn.arrived_s + min(self._max_wait_ratio * self._cold_s, longest_s)

    def start(self, turn: Turn) -> None:
        """Count half of a turn that runs. Mutates it."""
        self._count(turn, _HALF_DONE * turn.cold_s)

    def preempt(self, turn: Turn) -> None:
        """Count a turn in full that waits again. Mutates it."""
        self._count(turn, turn.cold_s)

    def leave(self, turn: Turn) -> None:
        """Remove a turn that has ended. Mutates it."""
        self._count(turn, 0.0)

    def clear(self) -> None:
        """Remove all turns. Mutates."""
        self._cold_s = 0.0

    def _count(self, turn: Turn, outstanding_s: float) -> None:
        self._cold_s += outstanding_s - turn.outstanding_s
        turn.outstanding_s = outstanding_s
