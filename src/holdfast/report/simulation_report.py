"""The report of `holdfast simulate`: all policies at every load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import BASELINE, BOUND, FLOOR
from holdfast.report.cells import format_cliff
from holdfast.report.comparison import Comparison, compare
from holdfast.report.curves import cliffs
from holdfast.report.html import Page, PageSection
from holdfast.report.plots import curves_svg, gains_svg
from holdfast.report.tables import ReportTable, all_metrics_table, policies_table

__all__ = ["simulation_caption", "simulation_page", "simulation_tables"]


def simulation_tables(comparison: Comparison) -> tuple[ReportTable, ...]:
    """One table for each point; pure."""
    return tuple(policies_table(comparison, point) for point in comparison.points)


def simulation_caption(comparison: Comparison) -> str:
    """The meaning of the figures of `simulation_tables`; pure."""
    is_window = any(point.load.window_s is not None for point in comparison.points)
    better = "more output there is" if is_window else "shorter the LLM time is"
    return (
        f"Medians over seeds. Gain: how many times {better} than with {comparison.baseline} on the "
        "same seed; below 1.00x is a loss."
    )


def simulation_page(runs: Sequence[RunResult], *, baseline: str = BASELINE) -> Page:
    """Tables, figures and cliffs of all policies; pure.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    comparison = compare(runs, baseline=baseline)
    points = comparison.points
    tables = tuple(policies_table(comparison, point, has_distances=True) for point in points)
    details = tuple(all_metrics_table(comparison, point) for point in points)
    return Page(
        title=f"Policies against {baseline}",
        text=_explanation(baseline),
        sections=(
            PageSection(tables=tables),
            PageSection("Gain", svg=gains_svg(comparison)),
            *_curve_sections(runs, comparison.policies, baseline),
            PageSection(
                "All metrics",
                text="Medians over the seeds, the lowest and highest in brackets; below them the "
                "gain with its 95 % interval.",
                tables=details,
                is_folded=True,
            ),
        ),
    )


def _curve_sections(
    runs: Sequence[RunResult], policies: Sequence[str], baseline: str
) -> Iterator[PageSection]:
    """Curves and cliffs; apart where session ends are known and where they are not."""
    all_ends = sorted({run.session_ends or "" for run in runs})
    for ends in all_ends:
        own = [run for run in runs if (run.session_ends or "") == ends]
        found = [each for policy in policies for each in cliffs(own, policy)]
        suffix = f", session ends {ends}" if len(all_ends) > 1 else ""
        svg = curves_svg(own, baseline=baseline)
        yield PageSection(f"Over sessions and cache size{suffix}", svg=svg)
        yield PageSection(f"Cliffs{suffix}", lines=tuple(map(format_cliff, found)))


def _explanation(baseline: str) -> str:
    return (
        f"Medians over the seeds. Gain: how many times better a policy is than {baseline} on the "
        "same seed, as the geometric mean over the seeds with its 95 % confidence interval "
        "(Student's t on the logarithms); below 1.00x is a loss. It is of the mean LLM time a "
        "session, in a window of the output. \u201c/ bound\u201d compares with "
        f"{BOUND}, which knows when sessions return; no policy is better than the lower bound. The "
        f"last two columns give the share of the way from {FLOOR} (no prefix cache) and from "
        f"{baseline} to that bound that a policy covers; they are empty where the bound is less "
        "than 1 % better."
    )
