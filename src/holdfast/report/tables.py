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
from holdfast.report.gain import Interval
from holdfast.report.metrics import Metric

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


_DISTANCE_COLUMNS: Final = (Column("way from floor"), Column("way from baseline"))
_LOWER_BOUND: Final = "lower bound"
_FROM_TIERS: Final = "hits in lower tiers"
_IN_SLO: Final = "output within the SLO (tokens/s)"


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
    comparison: Comparison, point: Point, *, has_distances: bool = False, has_ranges: bool = False
) -> ReportTable:
    """Policies below each other, the main metrics side by side, for one point; pure.

    Args:
        comparison: The runs; its metrics include those shown.
        point: The point.
        has_distances: Whether the shares of the distance to the bound are shown too.
        has_ranges: Whether the lowest and highest seed stand beside the objective, and beside the
            cache's figures.
    """
    shown = _figures(point)
    rows = [
        _policy_row(point, entry, comparison.baseline, shown, has_ranges=has_ranges)
        for entry in point.entries
    ]
    if point.lower_bound is not None:
        rows.append(_lower_bound_row(point, point.lower_bound, shown))
    columns = _policy_columns(point, shown)
    if has_distances:
        columns += _DISTANCE_COLUMNS
        shares = [_way_covered(entry) for entry in point.entries]
        shares += [("", "")] * (len(rows) - len(shares))
        rows = [row + share for row, share in zip(rows, shares, strict=True)]
    notes = (*_load_notes(comparison, point), *_notes(point))
    return ReportTable(format_load(point), columns, (RowGroup("", tuple(rows)),), notes)


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


@dataclass(frozen=True, slots=True)
class _Figures:
    """The columns of a policy table: before the objective, and after its gain."""

    before: tuple[tuple[Metric, Column], ...]
    after: tuple[tuple[Metric, Column], ...]


def _figures(point: Point) -> _Figures:
    """The figures of a window, or those of whole sessions."""
    metrics = {score.metric.label: score.metric for score in point.entries[0].scores}

    def shown(label: str, heading: str, width: int) -> tuple[Metric, Column]:
        return metrics[label], Column(heading, width)

    before = [shown("token hit ratio", "hit ratio", 5)]
    if any(_median(entry.score(_FROM_TIERS)) not in (UNKNOWN, "0.000") for entry in point.entries):
        before.append(shown(_FROM_TIERS, "from tiers", 5))
    has_slo = any(_median(entry.score(_IN_SLO)) != UNKNOWN for entry in point.entries)
    if not has_slo:
        before.append(shown("evicted blocks", "evicted blocks", 9 if point.load.window_s else 10))
    if point.load.window_s is None:
        after = [
            shown("request latency p50 (s)", "latency p50 (s)", 9),
            shown("request latency p99 (s)", "latency p99 (s)", 9),
            shown("makespan (s)", "makespan (s)", 10),
        ]
    else:
        after = [
            shown("TTFT p50 (s)", "TTFT p50 (s)", 7),
            shown("TTFT p90 (s)", "TTFT p90 (s)", 7),
            shown("TTFT p99 (s)", "TTFT p99 (s)", 7),
            shown("ITL p50 (ms)", "ITL p50 (ms)", 6),
        ]
        if has_slo:
            after.append(shown(_IN_SLO, "output in SLO", 8))
    return _Figures(tuple(before), tuple(after))


def _policy_columns(point: Point, shown: _Figures) -> tuple[Column, ...]:
    is_window = point.load.window_s is not None
    return (
        Column("policy", 17),
        *(column for _, column in shown.before),
        Column("output (tok/s)" if is_window else "LLM time a session (s)", 8),
        Column("gain", 8),
        Column("95 % interval", 12),
        *(column for _, column in shown.after),
        Column("bound / output" if is_window else "LLM time / bound", 7),
    )


def _policy_row(
    point: Point, entry: Entry, baseline: str, shown: _Figures, *, has_ranges: bool
) -> tuple[str, ...]:
    value = _value if has_ranges else _median
    counts = entry.score(point.objective.label)
    is_baseline = entry.policy == baseline
    gain = counts.gain
    return (
        name_entry(point, entry),
        *(value(entry.score(metric.label)) for metric, _ in shown.before),
        value(counts),
        "baseline" if is_baseline else format_times(None if gain is None else gain.mean),
        "" if is_baseline else format_confidence(gain),
        *(_median(entry.score(metric.label)) for metric, _ in shown.after),
        "bound" if entry.policy == BOUND else format_times(entry.distance.times_bound),
    )


def _lower_bound_row(point: Point, bound: Interval, shown: _Figures) -> tuple[str, ...]:
    """What no policy can be better than, from the engine's own throughput."""
    before, after = ("",) * len(shown.before), ("",) * len(shown.after)
    figure = format_median(point.objective, bound)
    ratio = None
    best = point.entry(BOUND)
    if best is not None and (interval := best.score(point.objective.label).interval) is not None:
        ratio = bound.median / interval.median if interval.median else None
    return (_LOWER_BOUND, *before, figure, "", "", *after, format_times(ratio))


def _way_covered(entry: Entry) -> tuple[str, str]:
    distance = entry.distance
    return format_share(distance.share_from_floor), format_share(distance.share_from_baseline)


def _load_notes(comparison: Comparison, point: Point) -> tuple[str, ...]:
    """How hard the load presses on the cache in a window, with the baseline."""
    entry = point.entry(comparison.baseline)
    if point.load.window_s is None or entry is None:
        return ()
    pressure, in_flight, waiting, longest = (
        _median(entry.score(label))
        for label in (
            "working set / KV cache",
            "in flight, mean",
            "waiting at the end",
            "longest wait at the end (s)",
        )
    )
    return (
        f"With {entry.policy} the live sessions' prompts are {pressure} times the KV cache and "
        f"{in_flight} requests are in flight; {waiting} wait at the end, the longest for "
        f"{longest} s.",
    )


def _median(score: Score) -> str:
    return format_median(score.metric, score.interval)


def _value(score: Score) -> str:
    return format_interval(score.metric, score.interval)


def _value_and_gain(score: Score) -> str:
    value = _value(score)
    return value if score.gain is None else f"{value}\n{format_gain(score.gain)}"


def _notes(point: Point) -> tuple[str, ...]:
    """Reasons why entries of a point are not comparable, one line each."""
    names: dict[str, list[str]] = {}
    for entry in point.entries:
        if notes := _entry_notes(point, entry):
            names.setdefault("; ".join(notes), []).append(name_entry(point, entry))
    return tuple(f"{', '.join(of_note)}: {note}" for note, of_note in names.items())


def _entry_notes(point: Point, entry: Entry) -> list[str]:
    notes = []
    if entry.policy != BOUND and knows_future(entry.policy):
        notes.append("told the future, like the bound")
    if entry.partial_seeds:
        notes.append(f"stopped before the end with {format_seeds(entry.partial_seeds)}")
    if entry.num_errors:
        notes.append(f"{entry.num_errors} {'turn' if entry.num_errors == 1 else 'turns'} failed")
    if missing := sorted(set(point.seeds) - set(entry.seeds)):
        notes.append(f"not run with {format_seeds(missing)}")
    return notes
