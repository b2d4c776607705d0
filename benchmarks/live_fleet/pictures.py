"""Pictures of a running fleet: the dashboard's panels, a frame of `holdfast top`."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from holdfast.bench.engine_watch import EngineWatch, look_at_all
from holdfast.report.dashboard import PANELS, Panel, Query
from holdfast.report.engine_frame import engine_frame

__all__ = ["Series", "draw_board", "draw_top", "named"]

Series = tuple[str, list[tuple[float, float]]]
"""Name of a line, and its points (s since the start, value)."""

_COLUMNS: Final = 3
_COLORS: Final = 64
_WIDTH: Final = 132
_SESSIONS: Final = 16
_LABEL: Final = re.compile(r"{{(\w+)}}")
_THEME: Final = TerminalTheme(
    (255, 255, 255),
    (40, 40, 40),
    [(0, 0, 0), (190, 30, 30), (20, 120, 50), (150, 100, 0), (30, 80, 180), (130, 50, 130),
     (0, 120, 130), (110, 110, 110)],
)  # fmt: skip


def named(query: Query, metric: Mapping[str, str]) -> str:
    """The legend of a series. Pure."""
    return _LABEL.sub(lambda match: metric.get(match[1], ""), query.legend)


def draw_board(path: Path, board: Mapping[str, Sequence[Series]]) -> None:
    """Draw all panels in their order as one PNG, as Grafana lays them out.

    Args:
        path: The file.
        board: The lines of each panel by its title.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    rows = -(-len(PANELS) // _COLUMNS)
    figure = Figure(figsize=(13.0, 2.5 * rows), layout="constrained")
    axes = list(figure.subplots(rows, _COLUMNS).flat)
    last_s = max(points[-1][0] for lines in board.values() for _, points in lines)
    for axis, panel in zip(axes, PANELS, strict=False):
        _draw_panel(axis, panel, board[panel.title])
        axis.set_xlim(0.0, last_s)
    for axis in axes[len(PANELS) :]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=72, format="png")
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(_COLORS).save(path, optimize=True)


def draw_top(path: Path, urls: Sequence[str], token: str) -> None:
    """Draw a frame of `holdfast top` as SVG, as a terminal shows it."""
    views = asyncio.run(_two_looks([EngineWatch(url, token) for url in urls]))
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(engine_frame(views, _WIDTH, _SESSIONS))
    text = console.export_svg(title="holdfast top", theme=_THEME, unique_id="top")
    # No fonts from elsewhere.
    path.write_text(re.sub(r"@font-face {.*?}", "", text, flags=re.DOTALL))


async def _two_looks(watches: Sequence[EngineWatch]) -> list[Any]:
    await look_at_all(watches)
    await asyncio.sleep(4.0)
    return list(await look_at_all(watches))


def _draw_panel(axis: Any, panel: Panel, lines: Sequence[Series]) -> None:
    axis.set_title(panel.title, fontsize=9, loc="left")
    drawn = [line for line in lines if any(value for _, value in line[1])] or list(lines)[:1]
    if drawn and panel.is_stacked:
        times = sorted({at_s for _, points in drawn for at_s, _ in points})
        known = [dict(points) for _, points in drawn]
        stacks = [[one.get(at_s, 0.0) for at_s in times] for one in known]
        axis.stackplot(times, *stacks, labels=[name for name, _ in drawn], alpha=0.75)
    else:
        for name, points in drawn:
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
    if drawn:
        axis.set_ylim(0.0, axis.get_ylim()[1] * (1.2 + 0.07 * len(drawn)))
        axis.legend(fontsize=6.5, frameon=False, loc="upper left", ncols=2)
    else:
        axis.text(0.5, 0.5, "no data", transform=axis.transAxes, ha="center", color="#888")
    if panel.unit == "percentunit":
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
