"""A share of a thread's idle time, for work that may wait."""

from __future__ import annotations

__all__ = ["TimeBudget"]


class TimeBudget:
    """Processor time that is earned as time passes, and spent.

    Args:
        idle_share: What is earned of the time in which the thread has nothing to do (0 to 1).
        busy_share: What is earned of its processor time (0 to `idle_share`, > 0).
        most_s: Most that is kept for later (s).
        now_s: Time now (s, monotonic); the budget begins full.
        thread_s: Processor time of the thread until now (s).
    """

    def __init__(
        self, idle_share: float, busy_share: float, most_s: float, now_s: float, thread_s: float
    ) -> None:
        self._idle_share = idle_share
        self._busy_share = busy_share
        self._most_s = most_s
        self._left_s = most_s
        self._now_s = now_s
        self._thread_s = thread_s

    def spend(self, cpu_s: float, now_s: float, thread_s: float) -> None:
        """Take in that so much was used (s), which may be more than is left. Mutates.

        Args:
            cpu_s: Processor time used by this work (s).
            now_s: Time now (s, monotonic).
            thread_s: Processor time of the thread until now, this work's too (s).
        """
        self._earn(now_s, thread_s)
        self._left_s -= cpu_s

    def wait_s(self, now_s: float, thread_s: float) -> float:
        """Time until more may be used if the thread idles (s, >= 0). Mutates."""
        self._earn(now_s, thread_s)
        return max(-self._left_s / self._idle_share, 0.0)

    def _earn(self, now_s: float, thread_s: float) -> None:
        passed_s, busy_s = now_s - self._now_s, thread_s - self._thread_s
        idle_s = max(passed_s - busy_s, 0.0)
        earned_s = self._idle_share * idle_s + self._busy_share * min(busy_s, passed_s)
        self._left_s = min(self._left_s + earned_s, self._most_s)
        self._now_s, self._thread_s = now_s, thread_s
