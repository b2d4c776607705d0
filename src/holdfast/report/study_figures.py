"""The figures of a workload study as SVG text; needs the [plots] extra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from holdfast.report.study_findings import format_seconds, format_tokens
from holdfast.report.svg import plain_text, style_axis, svg_settings, svg_text
from holdfast.workload.study.distribution import PERCENTS, Distribution
from holdfast.workload.study.load import Load
from holdfast.workload.study.workload import Study

__all__ = ["FIGURES", "study_svg"]

_COLOURS: Final = (
    "#1d6f5f", "#e07a3f", "#4c78a8", "#b279a2", "#9d755d", "#eeca3b", "#54a24b", "#d45087",
    "#5c677d", "#439894",
)  # fmt: skip
_NUM_BARS = 12
_WIDE = 100
_LEAST_HELD_TOKENS = 100
_MIN_CURVE_VALUES = 20
# A logarithmic axis begins at the second-lowest entry of the tables, smaller values at its edge.
_LOW_INDEX = 1
_LOWEST = 0.1
_SECOND_TICKS: Final = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)


def _shape(study: Study, axes: Any) -> None:
    shape = study.shape
    _draw_cumulative(axes[0], {"": shape.num_turns_each}, "turns of a session")
    _draw_cumulative(
        axes[1],
        {
            "first prompt": shape.first_prompt_tokens,
            "any prompt": shape.prompt_tokens,
            "largest of a session": shape.peak_prompt_tokens,
        },
        "prompt tokens",
    )
    growth = {f"prompt, {name}": each for name, each in sorted(shape.growth_tokens.items())}
    outputs = {f"answer, {name}": each for name, each in sorted(shape.output_tokens.items())}
    _draw_cumulative(axes[2], growth | outputs, "tokens that a turn adds")


def _prefixes(study: Study, axes: Any) -> None:
    prefixes = study.prefixes
    parts = {
        "own session": prefixes.own_tokens,
        "its family": prefixes.family_tokens,
        "other sessions": prefixes.foreign_tokens,
        "new": prefixes.new_tokens,
    }
    total = max(1, prefixes.prompt_tokens)
    _draw_bars(axes[0], {name: 100 * part / total for name, part in parts.items()}, "{:.1f} %")
    axes[0].set_title("prompt tokens by the session that sent them first (%)", fontsize=9)
    _draw_cumulative(
        axes[1], {"": prefixes.head_tokens}, "first prompt's tokens shared with another's"
    )


def _waits(study: Study, axes: Any) -> None:
    waits = study.waits
    gaps = {name: wait.gap_s for name, wait in waits.by_kind.items()}
    _draw_cumulative(axes[0], gaps, "wait (s)")
    _as_seconds(axes[0])
    total = waits.all.idle_token_s or 1.0
    shares = {name: 100 * wait.idle_token_s / total for name, wait in waits.by_name.items()}
    _draw_bars(axes[1], dict(list(shares.items())[:_NUM_BARS]), "{:.1f} %")
    axes[1].set_title("idle token-seconds by what the session waits for (%)", fontsize=9)


def _tools(study: Study, axes: Any) -> None:
    durations = {name: time.duration_s for name, time in study.tools_by_kind.items()}
    _draw_cumulative(axes[0], durations, "tool call (s)")
    _as_seconds(axes[0])
    total_s = sum(time.total_s for time in study.tools_by_kind.values()) or 1.0
    shares = {name: 100 * time.total_s / total_s for name, time in study.tools_by_name.items()}
    _draw_bars(axes[1], dict(list(shares.items())[:_NUM_BARS]), "{:.1f} %")
    axes[1].set_title("tool time by tool and command (%)", fontsize=9)


def _holding(study: Study, axes: Any) -> None:
    for colour, load in zip(_COLOURS, study.loads, strict=False):
        if load.holding is None:
            continue
        holding = load.holding
        kept = [100 * share for share in holding.kept_share]
        axes[0].plot(holding.hold_s, kept, color=colour, label=_label(load))
        axes[1].plot(holding.hold_s, holding.held_tokens, color=colour, label=_label(load))
    axes[0].set_title("reuse kept by holding KV for this long (%)", fontsize=9)
    axes[0].set_ylim(0, 103)
    axes[1].set_title("idle tokens kept in the KV cache, mean over time", fontsize=9)
    _as_log_tokens(axes[1])
    axes[1].set_ylim(bottom=_LEAST_HELD_TOKENS)
    _draw_engine(axes[1].axhline, study)
    for axis in axes:
        axis.set_xscale("log")
        _as_seconds(axis)


def _working_set(study: Study, axes: Any) -> None:
    for colour, load in zip(_COLOURS, study.loads, strict=False):
        elapsed = np.linspace(0, 100, len(load.working_set.at_s))
        axes[0].plot(
            elapsed, load.working_set.tokens_at, color=colour, label=_label(load), linewidth=1,
            drawstyle="steps-post",
        )  # fmt: skip
    axes[0].set_title("tokens of live contexts over the time at full load (%)", fontsize=9)
    positions = np.arange(len(study.loads))
    for percent, colour in ((50, "#1d6f5f"), (95, "#e07a3f"), (100, "#5c677d")):
        values = [load.working_set.tokens.at(percent) for load in study.loads]
        label = {50: "median", 95: "95th percentile", 100: "largest"}[percent]
        axes[1].plot(positions, values, color=colour, marker="o", markersize=4, label=label)
    axes[1].set_xticks(positions, [_label(load) for load in study.loads])
    axes[1].set_title("tokens of live contexts at full load", fontsize=9)
    for axis in axes:
        _as_log_tokens(axis)
        _draw_engine(axis.axhline, study)


def _cache(study: Study, axes: Any) -> None:
    (axis,) = axes
    for colour, load in zip(_COLOURS, study.loads, strict=False):
        misses = [100 * (1 - ratio) for ratio in load.cache.hit_ratio]
        axis.plot(load.cache.cache_tokens, misses, color=colour, label=_label(load))
        if load.cliff is not None:
            edge = load.cliff.edge_tokens
            axis.plot([edge], [100 * (1 - load.hit_ratio(edge))], color=colour, marker="o")
    for colour, load in zip(_COLOURS, study.busy_loads, strict=False):
        misses = [100 * (1 - ratio) for ratio in load.cache.hit_ratio]
        axis.plot(load.cache.cache_tokens, misses, color=colour, linestyle=":")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axis.set_ylim(0, 103)
    axis.set_title(
        "prompt tokens that an LRU cache misses (%) over its size (tokens); dotted: without gaps",
        fontsize=9,
    )
    _draw_engine(axis.axvline, study)
    gib = axis.secondary_xaxis(
        "top", functions=(study.engine.gib, lambda size: size / study.engine.gib(1))
    )
    gib.set_xlabel("GiB", fontsize=8)
    gib.xaxis.set_major_formatter("{x:g}")
    gib.tick_params(labelsize=8)


def _mutations(study: Study, axes: Any) -> None:
    mutations = study.mutations
    turns = max(1, mutations.num_turns)
    shares = {kind: 100 * num / turns for kind, num in mutations.num_by_kind.items()}
    _draw_bars(axes[0], shares, "{:.2f} %")
    axes[0].set_title("turns that do not extend the last prompt (%)", fontsize=9)
    costs = {
        kind: 100 * tokens / max(1, mutations.prompt_tokens)
        for kind, tokens in mutations.recompute_tokens_by_kind.items()
    }
    _draw_bars(axes[1], costs, "{:.2f} %")
    axes[1].set_title("prompt tokens computed again for it (%)", fontsize=9)
    _draw_cumulative(axes[2], {"": mutations.depth_share}, "depth, share of the last prompt")
    axes[2].set_xscale("linear")
    axes[2].set_xlim(0, 1)


_DRAWERS: Final[dict[str, tuple[int, Callable[[Study, Any], None]]]] = {
    "shape": (3, _shape),
    "prefixes": (2, _prefixes),
    "waits": (2, _waits),
    "tools": (2, _tools),
    "holding": (2, _holding),
    "working_set": (2, _working_set),
    "cache": (1, _cache),
    "mutations": (3, _mutations),
}

FIGURES: Final = tuple(_DRAWERS)
"""Sections that have a figure."""


def study_svg(study: Study, section: str) -> str | None:
    """Draw the figure of one of `FIGURES`; None when there is nothing to draw.

    Equal studies give equal text.
    """
    from matplotlib.figure import Figure

    if _is_empty(study, section):
        return None
    num_axes, draw = _DRAWERS[section]
    with svg_settings():
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        axes = figure.subplots(1, num_axes, squeeze=False)[0]
        draw(study, axes)
        for axis in axes:
            style_axis(axis)
            if len(axis.get_legend_handles_labels()[0]) > 0:
                axis.legend(frameon=False, fontsize=7)
        return svg_text(figure)


def _is_empty(study: Study, section: str) -> bool:
    empty = {
        "waits": study.waits.all.num_waits == 0,
        "tools": not study.tools_by_kind,
        "holding": all(load.holding is None for load in study.loads),
        "mutations": not study.mutations.num_by_kind,
    }
    return empty.get(section, False)


def _draw_cumulative(axis: Any, values: Mapping[str, Distribution], title: str) -> None:
    """Percent of the values up to each value."""
    drawn = {
        name: distribution
        for name, distribution in values.items()
        if distribution.num_values >= (_MIN_CURVE_VALUES if name else 1)
    }
    tables = [distribution.percentiles for distribution in drawn.values()]
    lowest = min((max(_LOWEST, table[_LOW_INDEX]) for table in tables), default=_LOWEST)
    for colour, name in zip(_COLOURS, drawn, strict=False):
        clipped = [max(lowest, value) for value in drawn[name].percentiles]
        axis.plot(clipped, PERCENTS, color=colour, label=plain_text(name) or None)
    axis.set_xscale("log")
    axis.set_xlim(left=lowest)
    low, high = axis.get_xlim()
    if high < _WIDE * low:  # a decade has one mark only
        marks = [times * 10.0**power for power in range(-3, 12) for times in (1, 2, 5)]
        axis.set_xticks([mark for mark in marks if low <= mark <= high])
    axis.xaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axis.xaxis.set_minor_formatter("")
    axis.set_ylim(0, 103)
    axis.set_title(f"{title}, cumulative (%)", fontsize=9)


def _draw_bars(axis: Any, values: Mapping[str, float], form: str) -> None:
    names = [plain_text(name) for name in values]
    bars = axis.barh(names, list(values.values()), color=_COLOURS[0], height=0.7)
    axis.bar_label(bars, [form.format(value) for value in values.values()], padding=3, fontsize=7)
    axis.invert_yaxis()
    axis.margins(x=0.15)


def _draw_engine(draw_line: Callable[..., Any], study: Study) -> None:
    draw_line(
        study.engine.kv_tokens,
        color="#000000",
        linewidth=0.8,
        linestyle="--",
        label=f"KV cache of {study.engine.name}",
    )


def _as_log_tokens(axis: Any) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: format_tokens(value))
    axis.yaxis.set_minor_formatter("")


def _as_seconds(axis: Any) -> None:
    axis.set_xlim(_LOWEST, 100_000)
    axis.set_xticks(_SECOND_TICKS, [format_seconds(tick) for tick in _SECOND_TICKS])
    axis.minorticks_off()


def _label(load: Load) -> str:
    return "as they arrived" if load.concurrency is None else f"{load.concurrency} at once"
