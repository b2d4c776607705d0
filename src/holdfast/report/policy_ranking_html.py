"""PolicyRanking as one self-contained HTML page with its figures; needs the [plots] extra."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.core.results import RunResult
from holdfast.report import policy_ranking_table
from holdfast.report.curves import AXES, MISS_RATIO, Cliff, Panel, cliffs, curves
from holdfast.report.page import render_page, require_plots, write_whole
from holdfast.report.policy_ranking import (
    BASELINE,
    BOUND,
    FLOOR,
    LLM_TIME,
    RANKING_METRICS,
    SUBJECT,
    Entry,
    PolicyRanking,
    RankingPoint,
    stand,
)
from holdfast.report.svg import plain_text, svg_settings, svg_text, tidy
from holdfast.report.table import format_interval

__all__ = ["curves_svg", "gains_svg", "render_policy_ranking_html", "write_policy_ranking_html"]

_NUM_GAIN_COLUMNS: Final = 2
_PUBLISHED_COLOURS: Final = (
    "#e07a3f", "#4c78a8", "#b279a2", "#9d755d", "#eeca3b", "#54a24b", "#ff9da6", "#439894",
    "#d45087",
)  # fmt: skip
_PUBLISHED_MARKERS: Final = "osv^D<>pX"
_OWN_STYLES: Final[dict[str, dict[str, Any]]] = {
    FLOOR: {"color": "#9aa0a6", "marker": "x", "linestyle": ":"},
    SUBJECT: {"color": "#1d6f5f", "marker": "o", "linewidth": 2.6},
    BOUND: {"color": "#000000", "marker": "*", "linestyle": "--"},
}
_BASELINE_STYLE: Final[dict[str, Any]] = {"color": "#5c677d", "marker": "s", "linewidth": 2.0}


def write_policy_ranking_html(
    path: Path,
    runs: Iterable[RunResult],
    manifest: Mapping[str, Any],
    *,
    baseline: str = BASELINE,
) -> None:
    """Write `render_policy_ranking_html` to `path`, replacing the file in one step.

    Raises:
        HoldfastError: The file cannot be written, or jinja2 or matplotlib is not installed.
    """
    write_whole(path, render_policy_ranking_html(runs, manifest, baseline=baseline).encode())


def render_policy_ranking_html(
    runs: Iterable[RunResult], manifest: Mapping[str, Any], *, baseline: str = BASELINE
) -> str:
    """Tables, figures and manifest as one page that loads nothing from elsewhere; pure.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    require_plots()
    known = list(runs)
    ranking = stand(known, baseline)
    return render_page(
        "policy_ranking",
        ranking=ranking,
        metrics=RANKING_METRICS,
        floor=FLOOR,
        bound=BOUND,
        columns=policy_ranking_table.COLUMNS,
        cliffs=_all_cliffs(known, ranking),
        gains_svg=gains_svg(ranking),
        curves_svg=curves_svg(known, baseline=baseline),
        manifest=json.dumps(manifest, indent=2, sort_keys=True),
        format_cliff=policy_ranking_table.format_cliff,
        format_confidence=policy_ranking_table.format_confidence,
        format_interval=format_interval,
        format_paired_gain=policy_ranking_table.format_paired_gain,
        format_share=policy_ranking_table.format_share,
        format_ranking=policy_ranking_table.format_ranking,
        name_entry=policy_ranking_table.name_entry,
        note_entries=policy_ranking_table.note_entries,
        ranking_cells=policy_ranking_table.ranking_cells,
    )


def gains_svg(ranking: PolicyRanking) -> str | None:
    """Draw a dot with its interval for every gain in mean LLM time; None when there is no gain.

    Equal ranking give equal text.
    """
    points = [point for point in ranking.points if _gaining(point)]
    if not points:
        return None
    from matplotlib.figure import Figure

    num_columns = min(_NUM_GAIN_COLUMNS, len(points))
    num_rows = math.ceil(len(points) / num_columns)
    height = 0.9 + 0.3 * max(len(_gaining(point)) for point in points)
    with svg_settings():
        figure = Figure(figsize=(5.5 * num_columns, height * num_rows), layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
        for axis in axes.flat[len(points) :]:
            axis.set_visible(False)
        for axis, point in zip(axes.flat, points, strict=False):
            _draw_gains(axis, point, _styles(ranking.policies, ranking.baseline))
        return svg_text(figure)


def curves_svg(runs: Sequence[RunResult], *, baseline: str = BASELINE) -> str | None:
    """Draw miss ratio and mean LLM time over sessions and cache size; None when neither changes.

    Equal runs give equal text.
    """
    pairs = [
        pair
        for axis in AXES
        for pair in zip(
            curves(runs, MISS_RATIO, axis, baseline=baseline),
            curves(runs, LLM_TIME, axis, baseline=baseline),
            strict=True,
        )
    ]
    if not pairs:
        return None
    from matplotlib.figure import Figure

    styles = _styles(stand(runs, baseline).policies, baseline)
    with svg_settings():
        figure = Figure(figsize=(11, 3.4 * len(pairs)), layout="constrained")
        axes = figure.subplots(len(pairs), 2, squeeze=False)
        for row, pair in zip(axes, pairs, strict=True):
            for axis, panel in zip(row, pair, strict=True):
                _draw_panel(axis, panel, styles)
        drawn = {
            label: handle
            for axis in axes.flat
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        if drawn:
            figure.legend(
                drawn.values(), drawn.keys(), loc="outside upper center", ncols=5, frameon=False
            )
        return svg_text(figure)


def _all_cliffs(runs: Sequence[RunResult], ranking: PolicyRanking) -> tuple[Cliff, ...]:
    return tuple(each for policy in ranking.policies for each in cliffs(runs, policy))


def _gaining(point: RankingPoint) -> list[Entry]:
    """The entries with a gain that a logarithmic axis can show."""
    return [
        entry
        for entry in point.entries
        if (gain := entry.score(LLM_TIME.label).gain) is not None and gain.mean > 0
    ]


def _draw_gains(axis: Any, point: RankingPoint, styles: Mapping[str, dict[str, Any]]) -> None:
    entries = _gaining(point)
    axis.axvline(1.0, color="#5c677d", linewidth=1)
    for place, entry in enumerate(entries):
        gain = entry.score(LLM_TIME.label).gain
        if gain is None:
            continue
        style = styles[entry.policy]
        if gain.low is not None and gain.high is not None:
            axis.plot([gain.low, gain.high], [place, place], color=style["color"], linewidth=1.6)
        axis.plot([gain.mean], [place], color=style["color"], marker=style["marker"])
        text = policy_ranking_table.format_paired_gain(gain)
        axis.annotate(
            text, (gain.mean, place), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=7,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xlim(*_gain_limits(entries))
    axis.xaxis.set_major_formatter("{x:g}x")
    axis.set_yticks(range(len(entries)), [plain_text(entry.policy) for entry in entries])
    axis.set_ylim(len(entries) - 0.4, -0.7)
    axis.set_title(policy_ranking_table.format_ranking(point), fontsize=9)
    tidy(axis)


def _gain_limits(entries: Sequence[Entry]) -> tuple[float, float]:
    """Around the dots; a wide interval, as two seeds give one, runs out of the frame."""
    gains = [gain for entry in entries if (gain := entry.score(LLM_TIME.label).gain) is not None]
    means = [1.0, *(gain.mean for gain in gains)]
    lowest = min([1.0, *(gain.low or gain.mean for gain in gains)])
    highest = max([1.0, *(gain.high or gain.mean for gain in gains)])
    return max(lowest / 1.2, min(means) / 3), min(highest * 1.2, max(means) * 3)


def _draw_panel(axis: Any, panel: Panel, styles: Mapping[str, dict[str, Any]]) -> None:
    drawn = [curve for curve in panel.curves if curve.points]
    for curve in drawn:
        intervals = [interval for _, interval in curve.points]
        axis.errorbar(
            [load for load, _ in curve.points],
            [interval.median for interval in intervals],
            yerr=[
                [interval.median - interval.low for interval in intervals],
                [interval.high - interval.median for interval in intervals],
            ],
            label=plain_text(curve.policy),
            markersize=5,
            capsize=2,
            elinewidth=0.8,
            **styles[curve.policy],
        )
    if drawn:
        loads = sorted({load for curve in drawn for load, _ in curve.points})
        axis.set_xscale("log", base=2)
        axis.set_xticks(loads, [f"{load:,}" for load in loads])
        axis.minorticks_off()
    if panel.metric is MISS_RATIO:
        axis.set_ylim(0, 1.02)
    elif drawn and min(interval.low for curve in drawn for _, interval in curve.points) > 0:
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
    is_sessions = panel.axis == "concurrency"
    axis.set_xlabel("sessions at once" if is_sessions else "KV tokens", fontsize=8)
    axis.set_title(panel.metric.label + _name_fixed(panel), fontsize=9)
    tidy(axis)


def _name_fixed(panel: Panel) -> str:
    if panel.fixed is None:
        return ""
    return f", {panel.fixed:,} {'KV tokens' if panel.axis == 'concurrency' else 'sessions at once'}"


def _styles(policies: Sequence[str], baseline: str) -> dict[str, dict[str, Any]]:
    """A look for each policy, the same in every figure of a page."""
    styles = {policy: _OWN_STYLES[policy] for policy in policies if policy in _OWN_STYLES}
    styles[baseline] = _BASELINE_STYLE
    published = [policy for policy in policies if policy not in styles]
    for place, policy in enumerate(published):
        styles[policy] = {
            "color": _PUBLISHED_COLOURS[place % len(_PUBLISHED_COLOURS)],
            "marker": _PUBLISHED_MARKERS[place % len(_PUBLISHED_MARKERS)],
            "linewidth": 1.2,
        }
    return styles
