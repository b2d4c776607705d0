"""Times between a workflow's agents, and how long a silence is normal."""

from __future__ import annotations

import math

__all__ = ["StepIntervals"]

_GAIN = 0.2  # weight of the latest observation
_UNKNOWN_SPREAD = 1.0
_LEAST_SPREAD = 0.1
_SOONEST_SHARE = 0.5  # of an interval


class StepIntervals:
    """A log-logistic distribution of intervals, recent ones counting most.

    Its tail falls like a power, faster where intervals are regular. Knows no absolute time: scaling
    all times by a factor scales all answers by it.

    Attributes:
        typical_s: Geometric mean, which is also the median (s); 0 before the first.
        spread: Mean error of log(interval), each against those before it (> 0).
    """

    def __init__(self, typical_s: float = 0.0, spread: float = _UNKNOWN_SPREAD) -> None:
        self.typical_s = typical_s
        self.spread = spread

    def observe(self, interval_s: float) -> None:
        """Learn an interval (s); one that is not positive tells nothing. Mutates."""
        if interval_s <= 0.0:
            return
        if self.typical_s <= 0.0:
            self.typical_s = interval_s
            return
        error = math.log(interval_s / self.typical_s)
        self.typical_s *= math.exp(_GAIN * error)
        self.spread += _GAIN * (abs(error) - self.spread)

    def survival(self, waited_s: float) -> float:
        """Probability that an interval is longer (0 to 1). Pure; 1 before any is known."""
        if self.typical_s <= 0.0 or waited_s <= 0.0:
            return 1.0
        octaves = self._shape * math.log2(waited_s / self.typical_s)
        return 1.0 / (1.0 + math.exp2(min(octaves, 1000.0)))

    def rest_s(self, waited_s: float) -> float:
        """Expected rest of an interval that goes on (s, >= half of a typical one). Pure.

        Past the typical time it is the inverse of the hazard of the tail.
        """
        overdue_s = waited_s / self._shape
        return max(self.typical_s - waited_s, overdue_s, _SOONEST_SHARE * self.typical_s)

    @property
    def _shape(self) -> float:
        """Power of the tail: such intervals have the mean error 2 log(2) / shape."""
        return 2.0 * math.log(2.0) / max(self.spread, _LEAST_SPREAD)
