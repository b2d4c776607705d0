"""The page of an evaluation, with curves; needs the [plots] extra."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.compress.outcome import FULL
from holdfast.compress.summary import MethodSummary
from holdfast.compress.table import HEADINGS, rows
from holdfast.report.page import render_page
from holdfast.report.svg import plain_text, style_axis, svg_settings, svg_text

__all__ = ["evaluation_page"]


def evaluation_page(
    found: Sequence[MethodSummary],
    sentences: Sequence[str],
    certificates: Mapping[str, float | None],
    manifest: Mapping[str, Any],
) -> str:
    """A self-contained page in HTML. Reads only its template.

    Args:
        found: Summaries, the full cache's among them.
        sentences: One a share.
        certificates: Certified share of each method; None where there is none.
        manifest: How to get the same numbers again.
    """
    return render_page(
        "eviction",
        sentences=sentences,
        figure=_curves(found),
        headings=HEADINGS,
        rows=rows(found),
        certificates={
            method: "none" if share is None else f"{100 * share:.0f} %"
            for method, share in certificates.items()
        },
        manifest=json.dumps(manifest, indent=1),
    )


def _curves(found: Sequence[MethodSummary]) -> str:
    """Loss of exact answers and added NLL over the share that stays, as SVG."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(row.method for row in found if row.method != FULL))
    with svg_settings():
        figure = Figure(figsize=(11, 4), layout="constrained")
        axes = figure.subplots(1, 2)
        for name in methods:
            points = sorted(
                ((row.share, row) for row in found if row.method == name), key=lambda pair: pair[0]
            )
            shares = [100 * share for share, _ in points]
            label = plain_text(name)
            axes[0].plot(shares, [row.exact_loss_points for _, row in points], "o-", label=label)
            axes[1].plot(shares, [row.nll_excess for _, row in points], "o-", label=label)
        for axis, title in zip(axes, ("exact answers lost (points)", HEADINGS[4]), strict=True):
            axis.set_xlabel("share of the cache that stays (%)", fontsize=9)
            axis.set_title(title, fontsize=10)
            axis.axhline(0, color="#888", linewidth=0.8)
            style_axis(axis)
        axes[1].legend(fontsize=7, frameon=False)
        return svg_text(figure)
