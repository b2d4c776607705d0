"""The part of a run that counts, and what is in flight in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.errors import ConfigError

__all__ = ["Window", "successive_spans"]


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a run, from `start_s` to before `end_s`.

    Attributes:
        start_s: Time from the start of the run (s, >= 0).
        duration_s: Length (s, > 0).
    """

    start_s: float
    duration_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < math.inf:
            raise ConfigError(f"start is {self.start_s!r}; expected seconds >= 0")
        if not 0 < self.duration_s < math.inf:
            raise ConfigError(f"duration is {self.duration_s!r}; expected seconds > 0")

    @property
    def end_s(self) -> float:
        """Time from the start of the run (s)."""
        return self.start_s + self.duration_s

    def contains(self, time_s: float | None) -> bool:
        """Whether a time of the run lies inside; None does not. Pure."""
        return time_s is not None and self.start_s <= time_s < self.end_s

    def overlap_s(self, from_s: float, until_s: float | None) -> float:
        """Part of a span of time inside (s); a span without an end lasts on. Pure."""
        end_s = self.end_s if until_s is None else min(until_s, self.end_s)
        return max(end_s - max(from_s, self.start_s), 0.0)

    def mean(self, spans: Iterable[tuple[float, float | None, float]]) -> float:
        """Mean over the window's time of values that each hold for a span of time. Pure.

        Args:
            spans: Begin (s), end (s; None where it lasts on) and value of each.
        """
        weighted = sum(value * self.overlap_s(begin_s, end_s) for begin_s, end_s, value in spans)
        return weighted / self.duration_s


def successive_spans(
    times_s: Sequence[float], values: Sequence[float], end_s: float | None
) -> list[tuple[float, float | None, float]]:
    """Spans in which each value holds until the next, the last until `end_s`. Pure."""
    return list(zip(times_s, [*times_s[1:], end_s], values, strict=True))
