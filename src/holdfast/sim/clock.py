"""The virtual clock of a simulation."""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """Simulated seconds since the start of a run; a call returns the current time.

    Attributes:
        now_s: The current time (s); never decreases.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The current time (s)."""
        return self.now_s

    def advance(self, duration_s: float) -> None:
        """Move forward by `duration_s` (>= 0)."""
        self.now_s += duration_s

    def advance_to(self, time_s: float) -> None:
        """Move forward to `time_s`, unless it is in the past."""
        self.now_s = max(self.now_s, time_s)
