"""A capacity plan as one HTML page; needs the [plots] extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.core.capacity import Capacity, CapacityPlan
from holdfast.report.html import Page, PageSection, write_html
from holdfast.report.plan_text import plan_notes, plan_table
from holdfast.report.svg import plain_text, style_axis, svg_settings, svg_text

__all__ = ["plan_svg", "write_plan_html"]

_FITS_SHARE: Final = 0.95
_CLIFF_SHARE: Final = 0.5


def write_plan_html(path: Path, plan: CapacityPlan) -> None:
    """Write the sentence, the table, the curves and what to know, in one file.

    Raises:
        HoldfastError: The file cannot be written, or jinja2 or matplotlib is not installed.
    """
    notes = [*plan_notes(plan), *(f"Warning: {warning}" for warning in plan.warnings)]
    page = Page(
        title="How many sessions fit",
        text=plan.sentence,
        sections=(
            PageSection(tables=(plan_table(plan),)),
            PageSection("Hits by sessions at once", svg=plan_svg(plan.capacities)),
            PageSection("What to know", lines=tuple(notes)),
        ),
    )
    write_html(path, page, plan.manifest)


def plan_svg(capacities: Sequence[Capacity]) -> str:
    """Kept hits by load: estimates as lines, simulated runs as points. Pure."""
    from matplotlib.figure import Figure

    with svg_settings():
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        axis = figure.subplots()
        for number, one in enumerate(capacities):
            _draw(axis, one, f"C{number}")
        for share, name in ((_FITS_SHARE, "fits"), (_CLIFF_SHARE, "cliff")):
            axis.axhline(share, color="#999", linewidth=0.8, linestyle=":")
            axis.annotate(
                name, (1.0, share), (-2, 2), "axes fraction", textcoords="offset points",
                ha="right", fontsize=8, color="#666",
            )  # fmt: skip
        axis.set_xlabel("sessions at once", fontsize=8)
        axis.set_ylabel("of an infinite cache's hits", fontsize=8)
        axis.set_ylim(0.0, 1.05)
        axis.set_xlim(left=0.0)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axis.legend(fontsize=8, frameon=False, loc="best")
        style_axis(axis)
        return svg_text(figure)


def _draw(axis: Any, one: Capacity, color: str) -> None:
    """Add one set-up. Mutates the axis."""
    loads = [load for load, _ in one.curve]
    shares = [share for _, share in one.curve]
    name = plain_text(f"{one.setup}, {one.method}")
    if one.method == "estimate":
        axis.plot(loads, shares, color=color, linewidth=1.6, label=name)
        if one.cliff is not None:
            axis.axvspan(one.cliff.low, one.cliff.high, color=color, alpha=0.12, linewidth=0)
    else:
        axis.plot(loads, shares, "o", color=color, markersize=4, label=name)
