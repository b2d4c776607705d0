"""Figures of comparisons as SVG text; needs the [plots] extra.

Equal runs give equal text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdfast.core.results import RunResult
from holdfast.report.bound_distance import BASELINE, BOUND, FLOOR
from holdfast.report.cells import format_load, format_times
from holdfast.report.comparison import SUBJECT, Comparison, Entry, Point, compare
from holdfast.report.curves import AXES, Panel, curves
from holdfast.report.gain import Gain
from holdfast.report.metrics import MISS_RATIO, objective
from holdfast.report.svg import plain_text, style_axis, svg_settings, svg_text

__all__ = ["bars_svg", "curves_svg", "gains_svg"]

_BAR_LABELS: Final = (
    "LLM time a session, mean (s)",
    "request latency p50 (s)",
    "request latency p99 (s)",
    "evicted blocks",
    "token hit ratio",
    "makespan (s)",
)
_NUM_BAR_COLUMNS: Final = 3
_ALL_BARS_WIDTH: Final = 0.76
_BAR_COLOURS: Final = ("#8d99ae", "#1d6f5f", "#e07a3f", "#4c78a8")
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


def bars_svg(comparison: Comparison) -> str:
    """Draw bars for the main metrics: medians, with the seeds' range as whiskers."""
    from matplotlib.figure import Figure

    num_rows = math.ceil(len(_BAR_LABELS) / _NUM_BAR_COLUMNS)
    with svg_settings():
        figure = Figure(figsize=(11, 3.1 * num_rows), layout="constrained")
        axes = figure.subplots(num_rows, _NUM_BAR_COLUMNS)
        for label, axis in zip(_BAR_LABELS, axes.flat, strict=False):
            _draw_bars(axis, comparison, label)
        if axes.flat[0].get_legend_handles_labels()[0]:
            axes.flat[0].legend(frameon=False, fontsize=8)
        return svg_text(figure)


def gains_svg(comparison: Comparison) -> str | None:
    """Draw a dot with its interval for every gain; None without a gain."""
    points = [point for point in comparison.points if _gaining(point)]
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
            _draw_gains(axis, point, _styles(comparison.policies, comparison.baseline))
        return svg_text(figure)


def curves_svg(runs: Sequence[RunResult], *, baseline: str = BASELINE) -> str | None:
    """Draw curves over sessions and cache size; None when neither changes."""
    pairs = [
        pair
        for axis in AXES
        for pair in zip(
            curves(runs, MISS_RATIO, axis, baseline=baseline),
            curves(runs, objective(runs), axis, baseline=baseline),
            strict=True,
        )
    ]
    if not pairs:
        return None
    from matplotlib.figure import Figure

    styles = _styles(compare(runs, baseline=baseline).policies, baseline)
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


def _draw_bars(axis: Any, comparison: Comparison, label: str) -> None:
    width = _ALL_BARS_WIDTH / len(comparison.policies)
    for side, policy in enumerate(comparison.policies):
        offset = (side - (len(comparison.policies) - 1) / 2) * width
        name = plain_text(policy)
        for index, point in enumerate(comparison.points):
            entry = point.entry(policy)
            interval = None if entry is None else entry.score(label).interval
            if interval is None:
                continue
            below, above = interval.median - interval.low, interval.high - interval.median
            axis.bar(
                index + offset,
                interval.median,
                width,
                color=_BAR_COLOURS[side % len(_BAR_COLOURS)],
                label=name,
                yerr=[[below], [above]] if below or above else None,
                capsize=3,
            )
            name = "_nolegend_"  # one entry for each policy
    axis.set_title(label, fontsize=9)
    axis.set_xticks(
        range(len(comparison.points)),
        [f"{point.load.concurrency} at once" for point in comparison.points],
    )
    style_axis(axis)


def _gaining(point: Point) -> list[Entry]:
    """The entries with a gain that a logarithmic axis can show."""
    return [
        entry
        for entry in point.entries
        if (gain := entry.score(point.objective.label).gain) is not None and gain.mean > 0
    ]


def _draw_gains(axis: Any, point: Point, styles: Mapping[str, dict[str, Any]]) -> None:
    entries = _gaining(point)
    gains: list[Gain] = []
    axis.axvline(1.0, color="#5c677d", linewidth=1)
    for index, entry in enumerate(entries):
        gain = entry.score(point.objective.label).gain
        if gain is None:
            continue
        gains.append(gain)
        style = styles[entry.policy]
        if gain.low is not None and gain.high is not None:
            axis.plot([gain.low, gain.high], [index, index], color=style["color"], linewidth=1.6)
        axis.plot([gain.mean], [index], color=style["color"], marker=style["marker"])
        axis.annotate(
            format_times(gain.mean), (gain.mean, index), xytext=(0, 5), textcoords="offset points",
            ha="center", fontsize=7,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xlim(*_gain_limits(gains))
    axis.xaxis.set_major_formatter("{x:g}x")
    axis.set_yticks(range(len(entries)), [plain_text(entry.policy) for entry in entries])
    axis.set_ylim(len(entries) - 0.4, -0.7)
    axis.set_title(format_load(point), fontsize=9)
    style_axis(axis)


def _gain_limits(gains: Sequence[Gain]) -> tuple[float, float]:
    """Limits around the dots; the frame cuts off a wide interval, as of two seeds."""
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
    style_axis(axis)


def _name_fixed(panel: Panel) -> str:
    if panel.fixed is None:
        return ""
    return f", {panel.fixed:,} {'KV tokens' if panel.axis == 'concurrency' else 'sessions at once'}"


def _styles(policies: Sequence[str], baseline: str) -> dict[str, dict[str, Any]]:
    """The style of each policy, the same in every figure of a page."""
    styles = {policy: _OWN_STYLES[policy] for policy in policies if policy in _OWN_STYLES}
    styles[baseline] = _BASELINE_STYLE
    published = [policy for policy in policies if policy not in styles]
    for index, policy in enumerate(published):
        styles[policy] = {
            "color": _PUBLISHED_COLOURS[index % len(_PUBLISHED_COLOURS)],
            "marker": _PUBLISHED_MARKERS[index % len(_PUBLISHED_MARKERS)],
            "linewidth": 1.2,
        }
    return styles
