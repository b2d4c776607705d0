"""Sessions live at once during a run: their peak and its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LiveSessions"]


@dataclass(frozen=True, slots=True)
class LiveSessions:
    """Live sessions of a run; each is live from its first request to its last answer.

    Attributes:
        peak: Most sessions live at once (count).
        session_s: Live time, summed over sessions (s).
        from_s: When the peak was first reached (s).
        until_s: When the peak was last left (s); it need not have lasted all the time between.
    """

    peak: int
    session_s: float
    from_s: float
    until_s: float

    @classmethod
    def of(cls, spans_s: Sequence[tuple[float, float]]) -> LiveSessions:
        """Count sessions by when each began and ended (s). Pure; O(n log n).

        A session that ends when another begins does not overlap with it.
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
        """Time from when the peak was first reached to when it was last left (s)."""
        return self.until_s - self.from_s

    def share_at_peak(self, began_s: float, ended_s: float) -> float:
        """Return the share (0 to 1) of a span of time (s) that lies in `peak_s`. Pure."""
        overlap_s = min(ended_s, self.until_s) - max(began_s, self.from_s)
        return max(0.0, overlap_s) / (ended_s - began_s) if ended_s > began_s else 0.0
