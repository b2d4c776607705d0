"""The report of `holdfast replay`: one run, or two side by side."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.results import RunResult
from holdfast.report.comparison import compare_pair
from holdfast.report.metrics import REPLAY_METRICS
from holdfast.report.tables import ReportTable, side_by_side_table

__all__ = ["replay_table"]


def replay_table(runs: Sequence[RunResult]) -> ReportTable:
    """The figures of the first run, and of a second one with its gain; pure."""
    first, second = runs[0], runs[1] if len(runs) > 1 else None
    comparison = compare_pair(first, second, REPLAY_METRICS)
    title = " against ".join(reversed(comparison.policies))
    return side_by_side_table(comparison, title, ratio="second / first")
