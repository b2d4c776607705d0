"""A share of the time that passes, for work that may wait."""

from __future__ import annotations

__all__ = ["TimeBudget"]


class TimeBudget:
    """Processor time that is earned as time passes, and spent.

    Args:
        share: What is earned of the time that passes (0 to 1).
        most_s: Most that is kept for later (s).
        now_s: Time now (s, monotonic); the budget begins full.
    """

    def __init__(self, share: float, most_s: float, now_s: float) -> None:
        self._share = share
        self._most_s = most_s
        self._left_s = most_s
        self._at_s = now_s

    def spend(self, cpu_s: float, now_s: float) -> None:
        """Take in that so much was used (s), which may be more than is left. Mutates."""
        earned_s = (now_s - self._at_s) * self._share
        self._left_s = min(self._left_s + earned_s, self._most_s) - cpu_s
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Time until more may be used (s, >= 0). Pure."""
        return max(-self._left_s / self._share - (now_s - self._at_s), 0.0)
