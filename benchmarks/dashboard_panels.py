"""Evaluates every panel and alert of the dashboard with a real Prometheus, under load.

python benchmarks/dashboard_panels.py [--load-s S] [--pictures DIR] [--output DIR]

Two engines on CPU and their gateway get more sessions than they hold. Each panel's queries must
have data, or be empty for a reason that stands here. Needs the program `prometheus` (Debian's
package of that name); without it, it reports that and ends. --pictures also draws the board and
`holdfast top`.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.report.dashboard import PANELS, Query, alert_rules
from holdfast.report.manifest import run_manifest
from live_fleet.fleet import TOKEN, running_fleet
from live_fleet.pictures import Series, draw_board, draw_top, named
from live_fleet.prometheus import BINARY, Prometheus

RIGHTLY_EMPTY: Final = {
    "no store: {{reason}}": "no copy was withheld from the tier",
    "no load: {{reason}}": "no stored block was computed instead",
    "alarm: {{kind}}": "no alarm was raised",
    "{{outcome}}": "no request had a hint, or nothing was prefetched",
}
"""Legends of queries that may be empty, and why."""

_RATE_S: Final = 8
_STEP_S: Final = 2.0
_SETTLE_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One query of a panel.

    Attributes:
        panel: Title of the panel.
        legend: The query's.
        lines: Its series.
    """

    panel: str
    legend: str
    lines: tuple[Series, ...]

    @property
    def verdict(self) -> str:
        """How many series, or why there is none; "EMPTY" without a reason. Pure."""
        if self.lines:
            return f"{len(self.lines)} series"
        reason = RIGHTLY_EMPTY.get(self.legend)
        return "EMPTY" if reason is None else f"rightly empty: {reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--load-s", type=float, default=120.0)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if BINARY is None:
        print("no program `prometheus`; apt-get install prometheus")
        return
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        found, rules = evaluated(Path(directory), options.load_s, options.pictures)
    text = table(found, rules)
    manifest = run_manifest(arguments={"load_s": options.load_s}, runs=[], digests={}, profile=None)
    content = {
        "manifest": manifest,
        "panels": [(one.panel, one.legend, one.verdict) for one in found],
        "rules": rules,
    }
    (options.output / "dashboard_panels.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.output / "dashboard_panels.md").write_text(text)
    print(text)


def evaluated(
    directory: Path, load_s: float, pictures: Path | None = None
) -> tuple[list[Evaluated], list[tuple[str, str, str]]]:
    """Every query of every panel, and name, health and state of every alert rule."""
    with running_fleet(directory) as fleet:
        targets = {
            "engines": [url.removeprefix("http://") for url in fleet.engines],
            "gateway": [fleet.gateway_metrics],
        }
        with Prometheus(directory / "prometheus", targets, alert_rules()) as prometheus:
            first_s = prometheus.now_s()
            with fleet.load():
                time.sleep(load_s)
                if pictures is not None:
                    pictures.mkdir(parents=True, exist_ok=True)
                    draw_top(pictures / "top.svg", fleet.engines, TOKEN)
            time.sleep(_SETTLE_S)
            assert prometheus.targets_up() == len(fleet.engines) + 1
            found = [
                Evaluated(panel.title, query.legend, tuple(_lines(prometheus, query, first_s)))
                for panel in PANELS
                for query in panel.queries
            ]
            rules = [
                (str(r["name"]), str(r["health"]), str(r["state"])) for r in prometheus.rules()
            ]
    if pictures is not None:
        board: dict[str, list[Series]] = {panel.title: [] for panel in PANELS}
        for one in found:
            board[one.panel] += one.lines
        draw_board(pictures / "dashboard.png", board)
    return found, rules


def _lines(prometheus: Prometheus, query: Query, first_s: float) -> Sequence[Series]:
    """The series of a query as Grafana asks for it, without values that are no numbers."""
    expression = query.expression.replace("$instance", ".*").replace(
        "$__rate_interval", f"{_RATE_S}s"
    )
    lines = []
    for series in prometheus.range(expression, first_s, prometheus.now_s(), _STEP_S):
        values = [(at_s - first_s, float(value)) for at_s, value in series["values"]]
        points = [(at_s, value) for at_s, value in values if math.isfinite(value)]
        if points:
            lines.append((named(query, series["metric"]), points))
    return lines


def table(found: Sequence[Evaluated], rules: Sequence[tuple[str, str, str]]) -> str:
    """Both as Markdown. Pure."""
    rows = ["| panel | query | data |", "|---|---|---|"]
    rows += [f"| {one.panel} | {one.legend} | {one.verdict} |" for one in found]
    rows += ["", "| alert rule | evaluation | state |", "|---|---|---|"]
    rows += [f"| {name} | {health} | {state} |" for name, health, state in rules]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
