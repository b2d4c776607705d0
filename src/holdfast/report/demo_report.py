"""The report of `holdfast demo`: the same tables on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import BASELINE
from holdfast.report.comparison import SUBJECT, compare
from holdfast.report.html import Page, PageSection
from holdfast.report.metrics import METRICS, TIER_METRICS
from holdfast.report.plots import bars_svg
from holdfast.report.run_point import RunPoint
from holdfast.report.tables import ReportTable, side_by_side_table

__all__ = ["demo_page", "demo_tables"]


def demo_tables(
    runs: Sequence[RunResult], restarted: Sequence[RunResult], tiered: str
) -> tuple[ReportTable, ...]:
    """Stock vLLM against Holdfast, then the effect of tiers, also on a restart; pure.

    Args:
        runs: The finished runs.
        restarted: Runs of the sessions' next turns after a restart.
        tiered: Policy name of the runs with tiers.
    """
    pair = compare(runs, policies=(BASELINE, SUBJECT), metrics=METRICS)
    tables = [side_by_side_table(pair, f"{SUBJECT} against {BASELINE}")]
    with_tiers = {RunPoint.of(run) for run in runs if run.policy == tiered}
    at_their_load = [run for run in runs if RunPoint.of(run) in with_tiers]
    for title, chosen in (
        (f"KV below the cache: {tiered} against {SUBJECT}", at_their_load),
        (f"The next turn after a restart: {tiered} against {SUBJECT}", restarted),
    ):
        if with_tiers and chosen:
            found = compare(
                chosen, baseline=SUBJECT, policies=(SUBJECT, tiered), metrics=TIER_METRICS
            )
            tables.append(side_by_side_table(found, title))
    return tuple(tables)


def demo_page(
    runs: Sequence[RunResult],
    restarted: Sequence[RunResult],
    tiered: str,
    remarks: Sequence[str] = (),
) -> Page:
    """The tables of `demo_tables` with a figure; pure.

    Args:
        runs: The finished runs.
        restarted: Runs of the sessions' next turns after a restart.
        tiered: Policy name of the runs with tiers.
        remarks: Sentences about the demonstration as a whole.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    pair = compare(runs, policies=(BASELINE, SUBJECT), metrics=METRICS)
    first, *others = demo_tables(runs, restarted, tiered)
    return Page(
        title=first.title,
        text="The same sessions on the same tiny model and the same machine, with few sessions at "
        "once and with more than the KV cache can hold. A seed stands for a choice of sessions.",
        sections=(
            PageSection(tables=(first,)),
            PageSection(
                "The main metrics",
                text="Bars are medians over the seeds; whiskers show the lowest and highest.",
                svg=bars_svg(pair),
            ),
            PageSection(
                "Tiers below the KV cache",
                text="The second load again, with a host tier and a pool on disk. Then the engine "
                "is restarted and each session takes one more turn: with tiers its prompt is "
                "loaded from the pool, without them it is computed again.",
                tables=tuple(others),
            ),
            PageSection("Remarks", lines=tuple(remarks)),
        ),
    )
