"""When prompts that begin alike come again: learned from the times at which they came."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Habits", "InterArrivalModel", "RecurringAgent"]

_MAX_BEGINNINGS = 1024
_WEIGHT = 0.3  # of what came last
_TRUSTED_ERROR = 0.35  # mean error of log(gap): a factor of 1.4
_UNKNOWN_ERROR = 1.0
_LEAST_ERROR = 0.05
_OVERDUE_RATIO = 1.5


@dataclass(slots=True)
class Habits:
    """How regular gaps have been, and what became of prompts.

    Attributes:
        error: Mean error of log(gap), each against those before it, of late.
        continued_share: Share of the prompts that were continued before the next came (0 to 1).
        answered_share: The same of those whose first answer called no tool.
    """

    error: float = _UNKNOWN_ERROR
    continued_share: float = 1.0
    answered_share: float = 1.0

    def gap_missed(self, error: float) -> None:
        """A gap was so far from what was expected. Mutates."""
        self.error += _WEIGHT * (error - self.error)

    def ended(self, *, is_continued: bool, is_answered: bool) -> None:
        """A prompt was continued, or the next one came before that. Mutates."""
        self.continued_share += _WEIGHT * (is_continued - self.continued_share)
        if is_answered:
            self.answered_share += _WEIGHT * (is_continued - self.answered_share)


@dataclass(slots=True, eq=False)
class RecurringAgent:
    """A beginning and how regularly it comes.

    Attributes:
        came_s: When it last came (s).
        habits: Those of all until it has two gaps, then its own.
        gap_s: Typical time from one time to the next (s); 0 before it has come twice.
        latest: Whose prompt it was that came last; the caller's.
    """

    came_s: float
    habits: Habits
    gap_s: float = 0.0
    latest: Any = None

    @property
    def is_regular(self) -> bool:
        """Whether it has come when it was expected to."""
        return self.gap_s > 0.0 and self.habits.error < _TRUSTED_ERROR

    def wait_s(self, now_s: float) -> float:
        """Time until it comes (s); inf if it is not regular, or overdue by half a gap. Pure."""
        waited_s = now_s - self.came_s
        if not self.is_regular or waited_s > _OVERDUE_RATIO * self.gap_s:
            return math.inf
        return max(self.gap_s - waited_s, max(self.habits.error, _LEAST_ERROR) * self.gap_s)


class InterArrivalModel:
    """Gaps between prompts with the same beginning.

    A beginning that has one gap is taken to be as regular as all have been of late. Knows no
    absolute time: scaling all times by a factor scales all answers by it.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, RecurringAgent] = OrderedDict()
        self._habits = Habits()

    def __iter__(self) -> Iterator[RecurringAgent]:
        """All beginnings, the longest unseen first."""
        return iter(self._known.values())

    def came(self, beginning: Hashable, now_s: float, before_s: float) -> RecurringAgent:
        """Learn that a prompt with this beginning has come. Mutates.

        Args:
            beginning: What names it.
            now_s: Time now (s).
            before_s: When it came before, where it is not known yet (s).
        """
        known = self._known.get(beginning)
        if known is None:
            known = self._known[beginning] = RecurringAgent(before_s, self._habits)
            if len(self._known) > _MAX_BEGINNINGS:
                self._known.popitem(last=False)
        self._known.move_to_end(beginning)
        gap_s = now_s - known.came_s
        known.came_s = now_s
        if gap_s > 0.0 and known.gap_s:
            error = abs(math.log(gap_s / known.gap_s))
            if known.habits is self._habits:
                known.habits = replace(self._habits)
            known.habits.gap_missed(error)
            self._habits.gap_missed(error)
            gap_s = math.sqrt(gap_s * known.gap_s)
        known.gap_s = gap_s or known.gap_s
        return known

    def ended(
        self, known: RecurringAgent, *, is_continued: bool, is_answered: bool = False
    ) -> None:
        """A prompt with this beginning was continued, or the next came before that. Mutates.

        Args:
            known: The beginning.
            is_continued: Whether it was.
            is_answered: Whether its answer called no tool.
        """
        for habits in {id(h): h for h in (known.habits, self._habits)}.values():
            habits.ended(is_continued=is_continued, is_answered=is_answered)
