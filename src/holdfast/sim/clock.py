"""A clock that moves when told to."""

from __future__ import annotations

__all__ = ["VirtualClock"]


class VirtualClock:
    """Seconds since the start of a run; calling it gives the time now.

    Attributes:
        now_s: The time now (s); only ever set forward.
    """

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time now (s)."""
        return self.now_s

    def advance(self, duration_s: float) -> None:
        """Move by `duration_s` >= 0."""
        self.now_s += duration_s

    def advance_to(self, time_s: float) -> None:
        """Move to `time_s` unless that is past."""
        self.now_s = max(self.now_s, time_s)
