"""Compares the scheduler's CPU time with and without the attribution of misses.

Two of Holdfast's schedulers serve the load of `decision_cost.py` in one process, in alternating
chunks of engine steps; one of them attributes nothing. Each pair of neighbouring chunks gives one
ratio.

Usage: python benchmarks/attribution_cost.py [--requests 32 ...] [--regime past] [--out DIR]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
from pathlib import Path
from typing import Any

from decision_cost import FILLS, Case, Chunk, Workload, run_chunk

__all__ = ["main"]

CALLS = ("evicted", "left", "step", "arrived", "started", "ended")


def without_attribution(load: Workload) -> None:
    """Take the attribution out of a scheduler. Mutates."""
    misses = load.engine.scheduler._runtime.misses  # noqa: SLF001
    for name in CALLS:
        setattr(misses, name, lambda *_, **__: None)


def counted(load: Workload) -> dict[str, int]:
    """Count the calls of a scheduler's attribution from now on. Mutates."""
    misses = load.engine.scheduler._runtime.misses  # noqa: SLF001
    counts = dict.fromkeys(CALLS, 0)

    def watch(name: str) -> None:
        act = getattr(misses, name)

        def call(*args: Any) -> Any:
            counts[name] += 1
            return act(*args)

        setattr(misses, name, call)

    for name in CALLS:
        watch(name)
    return counts


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Run both sides of one case; returns its row of the results."""
    from holdfast.vllm.scheduler import HoldfastScheduler

    sides = {
        name: Workload(HoldfastScheduler, case, args.blocks, args.seed)
        for name in ("without", "with")
    }
    without_attribution(sides["without"])
    for load in sides.values():
        for _ in range(args.warm_up_steps):
            load.step()
    gc.collect()
    gc.freeze()
    pairs: list[dict[str, Chunk]] = []
    for number in range(args.pairs):
        order = list(sides) if number % 2 else list(reversed(sides))
        pairs.append({name: run_chunk(sides[name], args.steps) for name in order})
    counts = counted(sides["with"])
    for _ in range(args.steps):
        sides["with"].step()
    gc.unfreeze()
    return {
        "regime": case.regime,
        "num_requests": case.num_requests,
        "schedule_ratio": _ratio([(p["with"].schedule_s, p["without"].schedule_s) for p in pairs]),
        "host_ratio": _ratio([(p["with"].host_s, p["without"].host_s) for p in pairs]),
        "schedule_us": 1e6 * statistics.median(p["with"].schedule_s / args.steps for p in pairs),
        "calls_a_step": {name: num / args.steps for name, num in counts.items()},
    }


def _ratio(pairs: list[tuple[float, float]]) -> dict[str, float]:
    low, middle, high = statistics.quantiles([ours / other for ours, other in pairs], n=4)
    return {"median": middle, "q25": low, "q75": high}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| cache | requests | `schedule()` | all host work | `schedule()`, µs | calls a step |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row[key]['median']:.3f} ({row[key]['q25']:.3f}-{row[key]['q75']:.3f})"
            for key in ("schedule_ratio", "host_ratio")
        ]
        calls = ", ".join(f"{name} {num:.2f}" for name, num in row["calls_a_step"].items())
        lines.append(
            f"| {row['regime']} the cliff | {row['num_requests']:,} | {' | '.join(cells)}"
            f" | {row['schedule_us']:.0f} | {calls} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every case and write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, action="append", help="running + waiting (count)")
    parser.add_argument("--regime", choices=list(FILLS), action="append")
    parser.add_argument("--blocks", type=int, default=100_000, help="blocks of 16 tokens")
    parser.add_argument("--warm-up-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=50, help="steps a chunk")
    parser.add_argument("--pairs", type=int, default=21, help="pairs of chunks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for attribution_cost.json and .md")
    args = parser.parse_args()
    os.environ["HOLDFAST_STRICT"] = "true"
    cases = itertools.product(args.regime or list(FILLS), args.requests or [32, 256])
    rows = []
    for regime, num_requests in cases:
        rows.append(measure(Case(regime, num_requests), args))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    if args.out is None:
        return
    from holdfast.report.manifest import run_manifest

    arguments = {key: value for key, value in vars(args).items() if key != "out"}
    manifest = run_manifest(arguments=arguments, runs=())
    manifest["seeds"] = [args.seed]
    document = {"schema": "holdfast.attribution_cost/1", "manifest": manifest, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "attribution_cost.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "attribution_cost.md").write_text(table(rows))


if __name__ == "__main__":
    main()
