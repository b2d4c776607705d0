"""Simulates what others measured on GPUs, and compares.

python benchmarks/gpu_anchor.py --traces PATH [--seeds N] [--jobs N] [--steps N,...] [--quick]
    [--output DIR]

`benchmarks/anchor/measured.json` has the measured figures and where they are from. Each simulated
run is kept under DIR/parts and not run again, nor is one that DIR/gpu_anchor.json has.
DIR/gpu_anchor.md has simulated beside measured, medians over the seeds that have run: N at most,
one for variations. `--quick` runs five points.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from anchor.figures import figures
from anchor.points import Point, plan, runs, sessions
from anchor.tables import write_results
from holdfast.traces.digest import sessions_digest
from holdfast.vllm.simulator.run import run_plan

_NUM_QUICK = 5
_SHOWN = ("output_tokens_per_s", "ttft_p50_s", "ttft_p99_s", "working_set_ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--steps", default="8,20,24", help="comma-separated")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--merge-only", action="store_true", help="run nothing")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.traces is None:
        print("gpu_anchor.py needs --traces: recorded sessions of up to 256,000 tokens")
        return
    parts = options.output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    _restore(options.output)
    steps = set(map(int, options.steps.split(",")))
    chosen = [run for run in runs(options.seeds) if run[0].step in steps]
    parted = [
        (point, options.traces, seed, parts / f"{point.name}-s{seed}.json")
        for point, seed in (chosen[:_NUM_QUICK] if options.quick else chosen)
    ]
    missing = [] if options.merge_only else [run for run in parted if not run[-1].exists()]
    if options.jobs == 1:
        for each in missing:
            run_one(*each)
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            for future in [pool.submit(run_one, *each) for each in missing]:
                future.result()
    arguments = {"traces": options.traces.name, "seeds": options.seeds}
    print(write_results(options.output, arguments))


def _restore(output: Path) -> None:
    """Write the parts that an earlier document has."""
    path = output / "gpu_anchor.json"
    for part in json.loads(path.read_text())["runs"] if path.exists() else ():
        name = f"{Point(**part['point']).name}-s{part['seed']}.json"
        _write_part(output / "parts" / name, part)


def _write_part(path: Path, part: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(part, indent=1) + "\n")
    temporary.replace(path)


def run_one(point: Point, traces: Path, seed: int, path: Path) -> None:
    """Simulate one point with one seed, and write its part."""
    began_s = time.perf_counter()
    chosen = sessions(point, traces, seed)
    planned = plan(point, traces, seed)
    run = run_plan(planned, chosen)
    whole, steady = figures(run, point.window), figures(run, point.steady)
    part = {
        "point": point.to_dict(),
        "seed": seed,
        "num_sessions": len(chosen),
        "sessions_sha256": sessions_digest(chosen),
        "output_scale": planned.options.output_scale,
        "profile": planned.profile.name,
        "whole": whole,
        "steady": steady,
    }
    _write_part(path, part)
    shown = {name: whole[name] for name in _SHOWN} | {"steady hits": steady["hit_ratio"]}
    print(f"{path.stem}: {time.perf_counter() - began_s:.0f} s", shown, flush=True)


if __name__ == "__main__":
    main()
