"""Simulates output against the slowest first tokens, as the wait bound moves.

python benchmarks/frontier.py --traces PATH [--seeds N] [--jobs N] [--output DIR]

Ten and twenty sessions at once on one H100 with Llama-3.1-8B, the loads of `policies.py --setup
sweep-h100`, with Holdfast's `max_wait_ratio` and `ttft_p99_target_s`. Its other policies are taken
from DIR/policies-sweep-h100-TRACES.json. `frontier-TRACES.md` has all points relative to stock
vLLM, medians over the seeds that all have, `frontier-TRACES.svg` draws them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from holdfast.core.results import RunResult
from holdfast.report.markdown import markdown_table
from holdfast.report.svg import style_axis, svg_settings
from holdfast.report.tables import Column, ReportTable, RowGroup
from simulated_table import (
    WINDOW,
    Load,
    TableOptions,
    Variant,
    make_table,
    table_options,
    table_parser,
)

STOCK = "vllm-default"
RATIOS = (0.7, 1.0, 1.25, 1.5, 4.0)
TARGETS_S = {10: (60, 80), 20: (170, 220)}
"""By sessions at once: about stock's TTFT p99, and a third more."""
TICKS = (1, 2, 4, 8)
H100 = ("--profile", "h100-llama3.1-8b", *WINDOW)


def _load(concurrency: int) -> Load:
    ratios = (
        Variant(f"holdfast, ratio {ratio:g}", "holdfast", {"max_wait_ratio": ratio})
        for ratio in RATIOS
    )
    targets = (
        Variant(f"holdfast, target {each} s", "holdfast", {"ttft_p99_target_s": float(each)})
        for each in TARGETS_S[concurrency]
    )
    arguments = (*H100, "--concurrency", str(concurrency), "--session-ends", "unknown")
    return Load(f"{concurrency}-unknown", arguments, (*ratios, *targets))


LOADS = tuple(map(_load, TARGETS_S))


class _Results(msgspec.Struct):
    """A result file: its runs by load."""

    runs: dict[str, list[RunResult]]


@dataclass(frozen=True, slots=True)
class Spot:
    """One policy under one load, relative to stock vLLM on the same seeds; medians.

    Attributes:
        policy: Its name, settings included.
        ttft_p50_s: TTFT p50 (s).
        ttft_p99: TTFT p99, turns that still wait included, relative to stock's.
        latency: Mean latency of a turn, relative to stock's; below 1 is better.
        output: Output, relative to stock's.
        num_seeds: Seeds (count).
    """

    policy: str
    ttft_p50_s: float
    ttft_p99: float
    latency: float
    output: float
    num_seeds: int


def main() -> None:
    options = table_options(table_parser(__doc__).parse_args())
    name = f"frontier-{options.traces_name}"
    make_table(name, LOADS, options)
    own, others = (
        _runs(options.output / f"{each}.json")
        for each in (name, f"policies-sweep-h100-{options.traces_name}")
    )
    spots = {
        load.name: _spots(_of_same_seeds(others.get(load.name, ()), own[load.name]))
        for load in LOADS
        if load.name in own
    }
    _write(name, spots, options)


def _runs(path: Path) -> Mapping[str, Sequence[RunResult]]:
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=_Results).runs


def _of_same_seeds(others: Sequence[RunResult], own: Sequence[RunResult]) -> list[RunResult]:
    """All runs, without others' on seeds that not all of our own variants have."""
    by_policy: dict[str, set[int]] = {}
    for run in own:
        by_policy.setdefault(run.policy, set()).add(run.seed)
    seeds = set.intersection(*by_policy.values())
    return [run for run in (*others, *own) if run.seed in seeds]


def _spots(runs: Sequence[RunResult]) -> list[Spot]:
    """All policies of one load, by their slowest first tokens."""
    stock = {run.seed: run for run in runs if run.policy == STOCK}
    spots = []
    for policy in dict.fromkeys(run.policy for run in runs):
        pairs = [(stock[r.seed], r) for r in runs if r.policy == policy and r.seed in stock]
        figures = [found for pair in pairs if (found := _relative(*pair)) is not None]
        if figures:
            p50_s, p99, latency, output = (median(each) for each in zip(*figures, strict=True))
            spots.append(Spot(policy, p50_s, p99, latency, output, len(figures)))
    return sorted(spots, key=lambda spot: spot.ttft_p99)


def _relative(stock: RunResult, run: RunResult) -> tuple[float, float, float, float] | None:
    """TTFT p50 (s), and p99, latency and output relative to stock's."""
    if not (stock.ttft_s and run.ttft_s and stock.request_latency_s and run.request_latency_s):
        return None
    return (
        run.ttft_s.p50,
        run.ttft_s.p99 / stock.ttft_s.p99,
        run.request_latency_s.mean / stock.request_latency_s.mean,
        (run.output_tokens_per_s or 0.0) / (stock.output_tokens_per_s or 1.0),
    )


def _write(name: str, spots: Mapping[str, Sequence[Spot]], options: TableOptions) -> None:
    columns = ("policy", "TTFT p99", "output", "mean latency", "TTFT p50, s", "seeds")
    table = ReportTable(
        "Output against the slowest first tokens, times stock vLLM's",
        tuple(map(Column, columns)),
        tuple(RowGroup(f"{load}", tuple(_rows(of_load))) for load, of_load in spots.items()),
    )
    (options.output / f"{name}.md").write_text(markdown_table(table))
    _draw(spots, options.output / f"{name}.svg")
    print(markdown_table(table))


def _rows(spots: Sequence[Spot]) -> Iterator[tuple[str, ...]]:
    for spot in spots:
        yield (
            spot.policy,
            f"{spot.ttft_p99:.2f}x",
            f"{spot.output:.2f}x",
            f"{spot.latency:.2f}x",
            f"{spot.ttft_p50_s:.2f}",
            str(spot.num_seeds),
        )


def _draw(spots: Mapping[str, Sequence[Spot]], path: Path) -> None:
    from matplotlib.figure import Figure

    with svg_settings():
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        for axis, (load, of_load) in zip(
            figure.subplots(1, len(spots)), spots.items(), strict=True
        ):
            ours = [s for s in of_load if s.policy.startswith("holdfast")]
            axis.plot([s.ttft_p99 for s in ours], [s.output for s in ours], "o-", color="#1d6f5f")
            for spot in of_load:
                if spot not in ours:
                    axis.plot(spot.ttft_p99, spot.output, "s", color="#e07a3f")
                label = spot.policy.removeprefix("holdfast, ")
                axis.annotate(
                    label,
                    (spot.ttft_p99, spot.output),
                    (5, 4),
                    textcoords="offset points",
                    fontsize=7,
                )
            axis.set_xscale("log")
            axis.set_xticks(TICKS, map(str, TICKS))
            axis.minorticks_off()
            axis.set_xlim(0.8, 16.0)
            axis.set_title(f"{load.partition('-')[0]} sessions at once", fontsize=9)
            axis.set_xlabel("TTFT p99, times stock's", fontsize=8)
            axis.set_ylabel("output, times stock's", fontsize=8)
            style_axis(axis)
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
