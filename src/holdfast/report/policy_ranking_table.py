"""PolicyRanking on a terminal of 120 columns, readable without colour: one block a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from holdfast.report.comparison import Interval, Point
from holdfast.report.curves import Cliff
from holdfast.report.policy_ranking import (
    BASELINE,
    BOUND,
    LLM_TIME,
    Entry,
    Gain,
    PolicyRanking,
    RankingPoint,
    Score,
    knows_future,
)
from holdfast.report.table import UNKNOWN, format_interval, format_load

__all__ = [
    "COLUMNS",
    "Column",
    "format_cliff",
    "format_confidence",
    "format_paired_gain",
    "format_ranking",
    "format_share",
    "format_times",
    "name_entry",
    "note_entries",
    "policy_ranking_table",
    "ranking_cells",
]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and a fixed width, which aligns the blocks; longer cells fold."""

    heading: str
    width: int


COLUMNS: Final = (
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


def policy_ranking_table(ranking: PolicyRanking) -> Group:
    """One block a point: medians over seeds, gains in mean LLM time a session; pure."""
    blocks: list[Table | Text] = [_block(point, ranking.baseline) for point in ranking.points]
    if blocks:
        blocks.append(
            Text(
                f"Medians over seeds. Gain: how many times shorter the LLM time is than with"
                f" {ranking.baseline}, paired by seed; below 1 is a loss."
            )
        )
    return Group(*blocks)


def ranking_cells(point: RankingPoint, entry: Entry, baseline: str = BASELINE) -> tuple[str, ...]:
    """What an entry of a point shows in each of `COLUMNS`; pure."""
    llm_time = entry.score(LLM_TIME.label)
    return (
        name_entry(point, entry),
        _median(entry.score("token hit ratio")),
        _median(entry.score("evicted blocks")),
        _median(llm_time),
        "baseline" if entry.policy == baseline else format_paired_gain(llm_time.gain),
        "" if entry.policy == baseline else format_confidence(llm_time.gain),
        _median(entry.score("request latency p50 (s)")),
        _median(entry.score("request latency p99 (s)")),
        _median(entry.score("makespan (s)")),
        "bound" if entry.policy == BOUND else format_times(entry.distance.times_bound),
    )


def name_entry(point: RankingPoint, entry: Entry) -> str:
    """The policy, with a star where `note_entries` has something to say of it."""
    return f"{entry.policy}*" if _notes(point, entry) else entry.policy


def note_entries(point: RankingPoint) -> tuple[str, ...]:
    """What makes entries of a point less than comparable, one line each; pure."""
    return tuple(
        f"{name_entry(point, entry)}: {'; '.join(notes)}"
        for entry in point.entries
        if (notes := _notes(point, entry))
    )


def format_ranking(point: RankingPoint) -> str:
    """The load in words."""
    return format_load(Point(point.concurrency, point.kv_tokens, point.seeds, ()))


def format_paired_gain(gain: Gain | None) -> str:
    """How many times better."""
    return UNKNOWN if gain is None else format_times(gain.mean)


def format_confidence(gain: Gain | None) -> str:
    """The ends of the confidence interval."""
    if gain is None or gain.low is None or gain.high is None:
        return UNKNOWN
    return f"{gain.low:.2f} to {gain.high:.2f}"


def format_times(times: float | None) -> str:
    """A ratio."""
    return UNKNOWN if times is None else f"{times:.2f}x"


def format_share(share: float | None) -> str:
    """A part of a whole, in percent."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def format_cliff(cliff: Cliff) -> str:
    """Where the cliff is, in one sentence."""
    is_sessions = cliff.axis == "concurrency"
    unit, other = ("sessions at once", "KV tokens") if is_sessions else ("KV tokens", "sessions")
    fixed = "" if cliff.fixed is None else f" with {cliff.fixed:,} {other}"
    if cliff.half_lost_at is None:
        half = "more than half of it is left at every load"
    else:
        half = f"at most half of it is left from {cliff.half_lost_at:,}"
    return (
        f"{cliff.policy}{fixed}: the hit ratio falls fastest from {cliff.from_load:,} to"
        f" {cliff.to_load:,} {unit} ({cliff.drop_per_doubling:.2f} a doubling of the load);"
        f" its best is {cliff.best_ratio:.2f}, {half}"
    )


def _block(point: RankingPoint, baseline: str) -> Table:
    notes = "\n".join(note_entries(point))
    table = Table(
        title=Text(format_ranking(point), style="bold"),
        title_justify="left",
        caption=Text(notes) if notes else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for place, column in enumerate(COLUMNS):
        table.add_column(
            column.heading,
            width=column.width,
            justify="right" if place else "left",
            overflow="fold",
        )
    for entry in point.entries:
        table.add_row(*(Text(cell) for cell in ranking_cells(point, entry, baseline)))
    return table


def _notes(point: RankingPoint, entry: Entry) -> list[str]:
    notes = []
    if entry.policy != BOUND and knows_future(entry.policy):
        notes.append("knows the future, like the bound")
    if entry.partial_seeds:
        notes.append(f"stopped before the end with {_name_seeds(entry.partial_seeds)}")
    if entry.num_errors:
        notes.append(f"{entry.num_errors} {'turn' if entry.num_errors == 1 else 'turns'} failed")
    if missing := sorted(set(point.seeds) - set(entry.seeds)):
        notes.append(f"not run with {_name_seeds(missing)}")
    return notes


def _median(score: Score) -> str:
    if score.interval is None:
        return UNKNOWN
    median = score.interval.median
    return format_interval(score.metric, Interval(median, median, median))


def _name_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
