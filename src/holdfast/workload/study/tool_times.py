"""Measures recorded durations of tool calls, from the call to its result."""

from __future__ import annotations

from array import array
from collections import defaultdict

import msgspec
import numpy as np

from holdfast.tool_calls.tool_kind import tool_kind
from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.waits import LONG_WAIT_S

__all__ = ["ToolTime", "ToolTimeMeter"]

_MIN_CALLS = 20


class ToolTime(msgspec.Struct, frozen=True):
    """Calls of one kind.

    Attributes:
        num_calls: Number of calls.
        duration_s: Duration of each.
        total_s: Sum of the durations.
        long_time_share: Share of calls over a minute in that sum; None if it is 0.
    """

    num_calls: int
    duration_s: Distribution
    total_s: float
    long_time_share: float | None


class ToolTimeMeter:
    """Accumulates tool calls."""

    def __init__(self) -> None:
        self._durations: defaultdict[tuple[str, str], array[float]] = defaultdict(
            lambda: array("d")
        )

    def add(self, name: str, command: str | None, duration_s: float) -> None:
        """Add a call of a tool; `command` as `Turn.tool_command`, `duration_s` >= 0."""
        self._durations[name, command or ""].append(duration_s)

    def by_kind(self) -> dict[str, ToolTime]:
        """Results by tool kind, by descending total time."""
        groups: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        for (name, _), durations in self._durations.items():
            groups[tool_kind(name)].extend(durations)
        return _results(groups)

    def by_name(self) -> dict[str, ToolTime]:
        """Results by tool and command with at least 20 calls, in the same order."""
        return _results(
            {
                f"{name} {command}".rstrip(): durations
                for (name, command), durations in self._durations.items()
                if len(durations) >= _MIN_CALLS
            }
        )


def _results(groups: dict[str, array[float]]) -> dict[str, ToolTime]:
    results = [(name, _result(durations)) for name, durations in groups.items()]
    return dict(sorted(results, key=lambda named: -named[1].total_s))


def _result(durations: array[float]) -> ToolTime:
    times = np.asarray(durations, dtype=np.float64)
    total_s = float(times.sum())
    long_s = float(times[times > LONG_WAIT_S].sum())
    return ToolTime(
        num_calls=len(times),
        duration_s=distribution_of(times),
        total_s=total_s,
        long_time_share=long_s / total_s if total_s > 0 else None,
    )
