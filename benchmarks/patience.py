"""Simulates LLM time and slowest requests by `max_wait_ratio`.

python benchmarks/patience.py [--traces PATH] [--profile NAME] [--seeds N] [--output DIR]

The load of `engine_sessions.py` past the cliff, at gaps times 0.02. Ratios to stock vLLM, by seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from holdfast.core.results import RunResult
from holdfast.report.document import read_document

RATIOS = ("0.5", "1", "1.5", "2", "4", "100")
LOAD = (
    *("--concurrency", "16", "--sessions", "16", "--kv-tokens", "24576", "--max-model-len", "9600"),
    *("--token-scale", "0.0625", "--block-size", "32", "--time-scale", "0.02", "--gap-cap-s", "60"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--profile", default="cpu-tiny")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    common = ["--profile", options.profile, "--seeds", options.seeds, *LOAD]
    if options.traces is not None:
        common += ["--traces", str(options.traces)]
    stock = simulate("vllm-default", common, options.output / "patience-stock.json")
    lines = ["| max_wait_ratio | LLM time a session | latency p99 | evicted blocks |"]
    lines.append("|---|---|---|---|")
    for ratio in RATIOS:
        settings = options.output / "patience.toml"
        settings.write_text(f"[holdfast]\nmax_wait_ratio = {ratio}\n")
        path = options.output / f"patience-{ratio}.json"
        runs = simulate("holdfast", [*common, "--holdfast-config", str(settings)], path)
        gains = zip(*(compare(stock[run.seed], run) for run in runs.values()), strict=True)
        cells = [", ".join(f"{gain:.2f}x" for gain in each) for each in gains]
        lines.append(f"| {ratio} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    (options.output / "patience.md").write_text(table)


def simulate(policy: str, arguments: list[str], path: Path) -> dict[int, RunResult]:
    """One policy's runs by seed."""
    command = [*arguments, "--policies", policy, "--json", str(path)]
    print("$ holdfast simulate", *command, flush=True)
    subprocess.run(
        [sys.executable, "-m", "holdfast", "simulate", *command],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {run.seed: run for run in read_document(path).runs}


def compare(stock: RunResult, ours: RunResult) -> tuple[float, float, float]:
    """How many times better: LLM time, P99 latency, evictions."""
    assert stock.session_llm_time_s is not None
    assert ours.session_llm_time_s is not None
    assert stock.request_latency_s is not None
    assert ours.request_latency_s is not None
    return (
        stock.session_llm_time_s.mean / ours.session_llm_time_s.mean,
        stock.request_latency_s.p99 / ours.request_latency_s.p99,
        (stock.evicted_blocks or 0) / max(ours.evicted_blocks or 0, 1),
    )


if __name__ == "__main__":
    main()
