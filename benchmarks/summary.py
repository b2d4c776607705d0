"""Writes stock vLLM against Holdfast in one table, from the result files of other scripts.

python benchmarks/summary.py

Reads results/policies-sweep-*.json and results/tiers-host-*.json; writes results/summary.md, which
docs/results.md and README.md quote.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.core.results import RunResult
from holdfast.report.cells import UNKNOWN, format_times
from holdfast.report.comparison import Entry, Point, compare
from holdfast.report.markdown import markdown_table
from holdfast.report.tables import Column, ReportTable, RowGroup

RESULTS = Path(__file__).parent / "results"
STOCK, OURS = "vllm-default", "holdfast"
ENGINES = {
    "policies-sweep-h100": "one H100, Llama-3.1-8B",
    "policies-sweep-h200": "2x H200, Qwen2.5-Coder-32B",
}
COLUMNS = (
    "sessions at once",
    "working set ÷ KV cache",
    "hit ratio",
    "evicted blocks",
    "output, tokens/s",
    "TTFT p50, s",
    "TTFT p99, s",
    "bound ÷ Holdfast",
)


class _Results(msgspec.Struct):
    """A result file: its runs by load."""

    runs: dict[str, list[RunResult]]


def main() -> None:
    groups = tuple(
        RowGroup(f"{engine}, {traces}", rows)
        for name, engine in ENGINES.items()
        for traces in ("weka-claude-code", "coding-agents")
        if (rows := _rows(RESULTS / f"{name}-{traces}.json"))
    )
    table = ReportTable(
        "Stock vLLM → Holdfast",
        tuple(map(Column, COLUMNS)),
        groups,
        ("Medians of three seeds; of the output also the gain, paired by seed.",),
    )
    (RESULTS / "summary.md").write_text(markdown_table(table))
    print((RESULTS / "summary.md").read_text())


def _rows(path: Path) -> tuple[tuple[str, ...], ...]:
    if not path.exists():
        return ()
    runs_of = msgspec.json.decode(path.read_bytes(), type=_Results).runs
    runs = [run for of_load in runs_of.values() for run in of_load]
    return tuple(_row(point) for point in compare(runs).points if point.entry(OURS))


def _row(point: Point) -> tuple[str, ...]:
    stock, ours = point.entry(STOCK), point.entry(OURS)
    assert stock is not None
    assert ours is not None
    gain = ours.score("output (tokens/s)").gain
    output = f"{_pair(stock, ours, 'output (tokens/s)', 0)} "
    output += f"({format_times(None if gain is None else gain.mean)})"
    times_bound = ours.distance.times_bound
    return (
        str(point.load.concurrency),
        _median(stock, "working set / KV cache", 2),
        _pair(stock, ours, "token hit ratio", 2),
        _pair(stock, ours, "evicted blocks", 0),
        output,
        _pair(stock, ours, "TTFT p50 (s)", 2),
        _pair(stock, ours, "TTFT p99 (s)", 0),
        UNKNOWN if times_bound is None else format_times(times_bound),
    )


def _pair(stock: Entry, ours: Entry, label: str, num_decimals: int) -> str:
    return f"{_median(stock, label, num_decimals)} → {_median(ours, label, num_decimals)}"


def _median(entry: Entry, label: str, num_decimals: int) -> str:
    interval = entry.score(label).interval
    return UNKNOWN if interval is None else f"{interval.median:,.{num_decimals}f}"


if __name__ == "__main__":
    main()
