"""Watches whether the cache thrashes and whether the engine makes progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from holdfast.core.miss import REPEATED_REASONS, Attribution
from holdfast.core.results import ratio

__all__ = ["Alarm", "AlarmKind", "Pulse", "Watchdog"]

AlarmKind = Literal["thrashing", "no_starts", "no_steps"]
"""`thrashing`: tokens are computed again and again. `no_starts`: turns wait, and none has started
for a minute. `no_steps`: turns run, and the engine has taken no step for a minute."""

_TURN_MEMORY: Final = 0.98
_LEAST_TURNS: Final = 20.0  # of the 50 that the memory stands for at most
_THRASHES_ABOVE: Final = 0.5
_RECOVERED_BELOW: Final = 0.25
_LEAST_SHARE: Final = 0.1
_STILL_S: Final = 60.0


class Pulse(NamedTuple):
    """An engine's counts at one time.

    Attributes:
        num_waiting: Turns that wait (count).
        num_running: Turns that run (count).
        num_started: Turns started since the engine started (count).
        num_steps: Its steps since then (count).
    """

    num_waiting: int
    num_running: int
    num_started: float
    num_steps: float


class Alarm(NamedTuple):
    """A condition that has begun.

    Attributes:
        kind: Which.
        message: What happens, with figures, and what to do.
    """

    kind: AlarmKind
    message: str


@dataclass(slots=True)
class _Still:
    """How long a count has stood still while it should rise."""

    value: float = -1.0
    since_s: float = 0.0

    def seconds(self, value: float, now_s: float, *, should_rise: bool) -> float:
        """Time that it has stood still (s). Mutates."""
        if value != self.value or not should_rise:
            self.value, self.since_s = value, now_s
        return now_s - self.since_s


class Watchdog:
    """Compares hit ratios with an infinite cache's; watches for a standstill.

    The ratios are over the last turns, about fifty. An alarm is given when its condition begins,
    and again only after it has ended.
    """

    def __init__(self) -> None:
        self._prompt_tokens = self._cached_tokens = self._repeated_tokens = 0.0
        self._num_turns = 0.0
        self._starts, self._steps = _Still(), _Still()
        self._lasting: set[AlarmKind] = set()

    def turn_ended(self, attribution: Attribution) -> None:
        """Take in a turn. Mutates; O(reasons)."""
        repeated = sum(attribution.missed.get(reason, 0) for reason in REPEATED_REASONS)
        self._num_turns = _TURN_MEMORY * self._num_turns + 1.0
        self._prompt_tokens = _TURN_MEMORY * self._prompt_tokens + attribution.prompt_tokens
        self._cached_tokens = _TURN_MEMORY * self._cached_tokens + attribution.cached_tokens
        self._repeated_tokens = _TURN_MEMORY * self._repeated_tokens + repeated

    @property
    def hit_ratio(self) -> float | None:
        """Cached prompt tokens ÷ prompt tokens."""
        return ratio(self._cached_tokens, self._prompt_tokens)

    @property
    def possible_hit_ratio(self) -> float | None:
        """The same with an infinite cache, as far as the engine knows."""
        return ratio(self._cached_tokens + self._repeated_tokens, self._prompt_tokens)

    @property
    def thrash_index(self) -> float | None:
        """Tokens computed again ÷ tokens computed for the first time."""
        new = self._prompt_tokens - self._cached_tokens - self._repeated_tokens
        return ratio(self._repeated_tokens, new)

    def look(self, now_s: float, pulse: Pulse) -> list[Alarm]:
        """The alarms whose conditions have begun since the last look. Mutates."""
        starts_s = self._starts.seconds(
            pulse.num_started, now_s, should_rise=pulse.num_waiting > 0 and not pulse.num_running
        )
        steps_s = self._steps.seconds(pulse.num_steps, now_s, should_rise=pulse.num_running > 0)
        found = (
            self._alarm("thrashing", self._thrashes(), self._thrash_message()),
            self._alarm(
                "no_starts",
                starts_s >= _STILL_S,
                f"{pulse.num_waiting} turns wait, none runs and none has started for"
                f" {starts_s:.0f} s. See the engine's log for errors of a tier or a connector;"
                " restart the engine if it stays so",
            ),
            self._alarm(
                "no_steps",
                steps_s >= _STILL_S,
                f"{pulse.num_running} turns run, and the engine has taken no step for"
                f" {steps_s:.0f} s. See the worker's log; a step may hang on a device or on a copy",
            ),
        )
        return [alarm for alarm in found if alarm is not None]

    def _alarm(self, kind: AlarmKind, holds: bool, message: str) -> Alarm | None:
        if not holds:
            self._lasting.discard(kind)
            return None
        if kind in self._lasting:
            return None
        self._lasting.add(kind)
        return Alarm(kind, message)

    def _thrashes(self) -> bool:
        index = self.thrash_index
        if self._num_turns < _LEAST_TURNS:
            return False
        if self._repeated_tokens < _LEAST_SHARE * self._prompt_tokens:
            return False
        limit = _RECOVERED_BELOW if "thrashing" in self._lasting else _THRASHES_ABOVE
        return index is None or index > limit

    def _thrash_message(self) -> str:
        return (
            f"the KV cache thrashes: {self.hit_ratio or 0.0:.1%} of prompt tokens were cached,"
            f" {self.possible_hit_ratio or 0.0:.1%} would be in a larger one. Run fewer sessions at"
            " once, give the cache more memory or add a host tier; `holdfast explain` has the"
            " causes"
        )
