"""Comparisons as tables of text, which `terminal` and `html` render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.report.bound_distance import BOUND, knows_future
from holdfast.report.cells import (
    UNKNOWN,
    format_confidence,
    format_gain,
    format_interval,
    format_load,
    format_median,
    format_seeds,
    format_share,
    format_times,
)
from holdfast.report.comparison import Comparison, Entry, Point, Score
from holdfast.report.metrics import LLM_TIME, Metric

__all__ = [
    "Column",
    "ReportTable",
    "RowGroup",
    "all_metrics_table",
    "name_entry",
    "policies_table",
    "side_by_side_table",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: heading, and width on a terminal; None fits the longest cell."""

    heading: str
    width: int | None = None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows under a heading of their own; each row has a cell for each column."""

    heading: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of text; the first column holds names, the others numbers.

    Attributes:
        title: Stands above it.
        columns: The columns.
        groups: The rows, in groups.
        notes: Lines below it.
    """

    title: str
    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    notes: tuple[str, ...] = ()


_POLICY_COLUMNS: Final = (
    Column("policy", 17),
    Column("hit ratio", 5),
    Column("evicted blocks", 10),
    Column("LLM time a session (s)", 9),
    Column("gain", 8),
    Column("95 % interval", 15),
    Column("latency p50 (s)", 9),
    Column("latency p99 (s)", 9),
    Column("makespan (s)", 10),
    Column("LLM time / bound", 8),
)
_DISTANCE_COLUMNS: Final = (Column("way from floor"), Column("way from baseline"))


def side_by_side_table(comparison: Comparison, title: str, *, ratio: str = "") -> ReportTable:
    """Metrics below each other, policies side by side, one group for each point; pure.

    Args:
        comparison: The runs to show.
        title: Stands above the table.
        ratio: Heading of a column with policy / baseline; empty leaves it out.
    """
    subjects = [policy for policy in comparison.policies if policy != comparison.baseline]
    columns = [Column(_name_partial(comparison, policy)) for policy in comparison.policies]
    for subject in subjects:
        of_subject = "" if len(subjects) == 1 else f", {subject}"
        columns += [Column(ratio + of_subject)] if ratio else []
        columns.append(Column("gain" + of_subject))
    groups = tuple(
        RowGroup(
            format_load(point),
            tuple(
                _side_by_side_row(comparison, point, metric, subjects, has_ratio=bool(ratio))
                for metric in comparison.metrics
            ),
        )
        for point in comparison.points
    )
    return ReportTable(title, (Column(""), *columns), groups, _side_by_side_notes(comparison))


def policies_table(
    comparison: Comparison, point: Point, *, has_distances: bool = False
) -> ReportTable:
    """Policies below each other, the main metrics side by side, for one point; pure.

    Args:
        comparison: The runs; its metrics include those shown.
        point: The point.
        has_distances: Whether the shares of the distance to the bound are shown too.
    """
    rows = []
    for entry in point.entries:
        row = _policy_row(point, entry, comparison.baseline)
        if has_distances:
            distance = entry.distance
            shares = (distance.share_from_floor, distance.share_from_baseline)
            row += tuple(map(format_share, shares))
        rows.append(row)
    columns = _POLICY_COLUMNS + (_DISTANCE_COLUMNS if has_distances else ())
    return ReportTable(format_load(point), columns, (RowGroup("", tuple(rows)),), _notes(point))


def all_metrics_table(comparison: Comparison, point: Point) -> ReportTable:
    """All metrics, policies side by side, gains below the values; pure."""
    columns = (Column("metric"), *(Column(name_entry(point, entry)) for entry in point.entries))
    rows = tuple(
        (metric.label, *(_value_and_gain(entry.score(metric.label)) for entry in point.entries))
        for metric in comparison.metrics
    )
    return ReportTable(format_load(point), columns, (RowGroup("", rows),))


def name_entry(point: Point, entry: Entry) -> str:
    """The policy, with a star where the point has a note about it; pure."""
    return f"{entry.policy}*" if _entry_notes(point, entry) else entry.policy


def _side_by_side_row(
    comparison: Comparison,
    point: Point,
    metric: Metric,
    subjects: Sequence[str],
    *,
    has_ratio: bool,
) -> tuple[str, ...]:
    scores = {entry.policy: entry.score(metric.label) for entry in point.entries}
    cells = [metric.label]
    for policy in comparison.policies:
        score = scores.get(policy)
        cells.append(UNKNOWN if score is None else format_interval(metric, score.interval))
    for subject in subjects:
        score = scores.get(subject)
        if has_ratio:
            ratio = None if score is None or score.ratio is None else score.ratio.mean
            cells.append(UNKNOWN if ratio is None else f"{ratio:.2f}")
        gain = None if score is None else score.gain
        cells.append("" if metric.better == "neither" else format_gain(gain))
    return tuple(cells)


def _name_partial(comparison: Comparison, policy: str) -> str:
    entries = [point.entry(policy) for point in comparison.points]
    is_partial = any(entry is not None and entry.partial_seeds for entry in entries)
    return f"{policy} (partial)" if is_partial else policy


def _side_by_side_notes(comparison: Comparison) -> tuple[str, ...]:
    has_seeds = any(len(point.seeds) > 1 for point in comparison.points)
    values = (
        "Medians over the seeds, the lowest and highest in brackets; gains with their interval."
    )
    gain = (
        f"Gain: how many times better than {comparison.baseline}; below 1.00x is a loss, "
        f"{UNKNOWN} is not known."
    )
    notes = [values] if has_seeds else []
    return tuple(notes + [gain] * (len(comparison.policies) > 1))


def _policy_row(point: Point, entry: Entry, baseline: str) -> tuple[str, ...]:
    llm_time = entry.score(LLM_TIME.label)
    is_baseline = entry.policy == baseline
    gain = llm_time.gain
    return (
        name_entry(point, entry),
        _median(entry.score("token hit ratio")),
        _median(entry.score("evicted blocks")),
        _median(llm_time),
        "baseline" if is_baseline else format_times(None if gain is None else gain.mean),
        "" if is_baseline else format_confidence(gain),
        _median(entry.score("request latency p50 (s)")),
        _median(entry.score("request latency p99 (s)")),
        _median(entry.score("makespan (s)")),
        "bound" if entry.policy == BOUND else format_times(entry.distance.times_bound),
    )


def _median(score: Score) -> str:
    return format_median(score.metric, score.interval)


def _value_and_gain(score: Score) -> str:
    value = format_interval(score.metric, score.interval)
    return value if score.gain is None else f"{value}\n{format_gain(score.gain)}"


def _notes(point: Point) -> tuple[str, ...]:
    """Reasons why entries of a point are not comparable, one line each."""
    return tuple(
        f"{name_entry(point, entry)}: {'; '.join(notes)}"
        for entry in point.entries
        if (notes := _entry_notes(point, entry))
    )


def _entry_notes(point: Point, entry: Entry) -> list[str]:
    notes = []
    if entry.policy != BOUND and knows_future(entry.policy):
        notes.append("knows the future, like the bound")
    if entry.partial_seeds:
        notes.append(f"stopped before the end with {format_seeds(entry.partial_seeds)}")
    if entry.num_errors:
        notes.append(f"{entry.num_errors} {'turn' if entry.num_errors == 1 else 'turns'} failed")
    if missing := sorted(set(point.seeds) - set(entry.seeds)):
        notes.append(f"not run with {format_seeds(missing)}")
    return notes
