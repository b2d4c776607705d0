"""Whether calls that are made early save more than they waste."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["SpeculationLedger"]

_MEMORY: Final = 0.97  # weight that an outcome keeps with each later one
_TIME_GAIN: Final = 0.2


@dataclass(slots=True)
class SpeculationLedger:
    """Weighs seconds saved against seconds wasted, and knows how long tools take.

    A call that takes t seconds is made early with probability p if p * t, which a client would not
    wait, is at least `waste_weight` * (1 - p) * t, which a server would work for nothing.
    Since predictions may be wrong about themselves, outcomes are added up too, recent ones weighing
    most. While the balance is negative predictions are only compared with what comes, as if they
    had been made, until it is positive again.

    Args:
        waste_weight: Seconds saved that a wasted second costs (>= 0).
        least_s: A tool that takes less is left alone, as the proxy's own work costs as much (s).

    Attributes:
        balance_s: Seconds saved less weighted seconds wasted (s).
    """

    waste_weight: float = 0.25
    least_s: float = 0.005
    balance_s: float = 0.0
    _took_s: dict[str, float] = field(default_factory=dict)

    @property
    def is_enabled(self) -> bool:
        """Whether predictions have paid lately. Pure."""
        return self.balance_s >= 0.0

    def expected_s(self, tool: str) -> float:
        """How long a call of a tool takes (s); 0 if none was made. Pure."""
        return self._took_s.get(tool, 0.0)

    def is_promising(self, tool: str, probability: float) -> bool:
        """Whether to make a call of a tool that is asked for with a probability. Pure."""
        is_slow = self.expected_s(tool) >= self.least_s
        return is_slow and probability >= self.waste_weight * (1.0 - probability)

    def observe_time(self, tool: str, took_s: float) -> None:
        """Learn how long a call took (s). Mutates."""
        known_s = self._took_s.get(tool, took_s)
        self._took_s[tool] = known_s + _TIME_GAIN * (took_s - known_s)

    def settle(self, saved_s: float, wasted_s: float) -> None:
        """Add the outcome of a prediction: time saved and wasted (s). Mutates."""
        self.balance_s = self.balance_s * _MEMORY + saved_s - self.waste_weight * wasted_s
