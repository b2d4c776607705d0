"""Counts the sessions that were live during a run: at most, on average, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LiveSessions"]


@dataclass(frozen=True, slots=True)
class LiveSessions:
    """Sessions between their first request and their last answer.

    Attributes:
        peak: The most at once.
        session_s: Time that they were live, summed over sessions (s).
        from_s: When so many were first live at once.
        until_s: When so many were last live at once. Between the two a session may have ended
            and the next one have begun.
    """

    peak: int
    session_s: float
    from_s: float
    until_s: float

    @classmethod
    def of(cls, spans_s: Sequence[tuple[float, float]]) -> LiveSessions:
        """Count sessions by when each began and ended (s); O(n log n), pure.

        A session that ends makes room for one that begins at the same time.
        """
        lived = [(began_s, ended_s) for began_s, ended_s in spans_s if ended_s > began_s]
        changes = [(began_s, 1) for began_s, _ in lived] + [(ended_s, -1) for _, ended_s in lived]
        num_live = peak = 0
        from_s = until_s = 0.0
        for time_s, change in sorted(changes):
            if num_live == peak and change < 0:
                until_s = time_s
            num_live += change
            if num_live > peak:
                peak, from_s = num_live, time_s
        return cls(peak, sum(ended_s - began_s for began_s, ended_s in lived), from_s, until_s)

    @property
    def peak_s(self) -> float:
        """Time from when the most were first live to when they last were (s)."""
        return self.until_s - self.from_s

    def share_at_peak(self, began_s: float, ended_s: float) -> float:
        """Return which part of a span of time (s) lies in that time, 0 to 1; pure."""
        overlap_s = min(ended_s, self.until_s) - max(began_s, self.from_s)
        return max(0.0, overlap_s) / (ended_s - began_s) if ended_s > began_s else 0.0
