"""Compares the simulator with the real CPU engine on the same sessions.

python benchmarks/simulator_truth.py [--traces PATH] [--engine RUNS.json --turns TURNS.jsonl]

Takes the runs of `holdfast demo`, fits a cost profile to stock vLLM's turns at a light load,
simulates the same sessions with it, and writes the differences. Without --engine it runs the demo.
Asked for: hit ratio within 2 points, evicted blocks within 10 %, LLM time a session within 20 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from holdfast.core.results import RunDocument, RunResult

BLOCK_TOKENS = 32
LIMITS = {"token hit ratio": 0.02, "evicted blocks": 0.10, "LLM time a session (s)": 0.20}
LOAD = ("max_model_len", "token_scale", "time_scale", "gap_cap_s", "kv_tokens", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--engine", type=Path, help="What `holdfast demo --json` wrote.")
    parser.add_argument("--turns", type=Path, help="What `holdfast demo --records` wrote.")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    traces = [] if options.traces is None else ["--traces", options.traces]
    engine, turns = options.engine, options.turns
    if engine is None:
        engine = options.output / "truth-engine.json"
        holdfast("demo", *traces, "--records", options.output, "--json", engine)
        turns = options.output / "vllm-default-c2-s0.jsonl"
    stem = options.output / f"simulator_truth-{engine.stem}"
    profile = stem.with_name(f"{stem.name}.toml")
    holdfast("profile", "calibrate", turns, "--base", "cpu-tiny", "--out", profile)
    document = msgspec.json.decode(engine.read_bytes(), type=RunDocument)
    simulated = simulate(document.manifest["arguments"], profile, traces, stem)
    table = compare(document.runs, simulated)
    print(table)
    stem.with_name(f"{stem.name}.md").write_text(table)


def simulate(
    arguments: dict[str, Any], profile: Path, traces: list[object], stem: Path
) -> list[RunResult]:
    """The demo's points, simulated."""
    load: list[object] = [*traces, "--seeds", arguments["num_seeds"]]
    for name in LOAD:
        load += [f"--{name.replace('_', '-')}", arguments[name]]
    runs: list[RunResult] = []
    num_before = 0
    points = zip(arguments["concurrency"], arguments["num_sessions"], strict=True)
    for concurrency, num_sessions in points:
        path = stem.with_name(f"{stem.name}-c{concurrency}.json")
        holdfast(
            *("simulate", *load, "--concurrency", concurrency, "--sessions", num_sessions),
            *("--profile", profile, "--policies", "vllm-default,holdfast"),
            # The demo's servers keep what they learned from one point to the next.
            *("--warm-up", num_before, "--block-size", BLOCK_TOKENS, "--json", path),
        )
        num_before = num_sessions
        runs += msgspec.json.decode(path.read_bytes(), type=RunDocument).runs
    return runs


def holdfast(*arguments: object) -> None:
    """Run a command of Holdfast."""
    command = [sys.executable, "-m", "holdfast", *map(str, arguments)]
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True)


def compare(engine: list[RunResult], simulated: list[RunResult]) -> str:
    """A markdown table, one line a run and figure."""
    found = {(run.policy, run.seed, run.concurrency): run for run in simulated}
    lines = ["| policy | sessions at once | seed | figure | engine | simulator | off by | |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for run in engine:
        twin = found[run.policy, run.seed, run.concurrency]
        for (label, limit), real, made_up in zip(
            LIMITS.items(), figures(run), figures(twin), strict=True
        ):
            off = abs(made_up - real) / (1.0 if label == "token hit ratio" else max(real, 1.0))
            verdict = "within" if off <= limit else "outside"
            lines.append(
                f"| {run.policy} | {run.concurrency} | {run.seed} | {label} | {real:,.3f} | "
                f"{made_up:,.3f} | {off:.1%} | {verdict} {limit:.0%} |"
            )
    return "\n".join(lines) + "\n"


def figures(run: RunResult) -> tuple[float, float, float]:
    """Hit ratio, evicted blocks, mean LLM time a session."""
    assert run.token_hit_ratio is not None
    assert run.evicted_blocks is not None
    assert run.session_llm_time_s is not None
    return run.token_hit_ratio, float(run.evicted_blocks), run.session_llm_time_s.mean


if __name__ == "__main__":
    main()
