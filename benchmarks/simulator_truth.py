"""Does the simulator tell the truth? The same sessions on the real CPU engine and simulated.

python benchmarks/simulator_truth.py [--traces PATH] [--seeds N] [--output DIR]

Runs `holdfast demo`, fits a cost profile to stock vLLM's turns at the light load, simulates the
same sessions with it, and writes the differences. Asked for: hit ratio within 2 points, evicted
blocks within 10 %, LLM time a session within 20 %.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec

from holdfast.core.results import RunDocument, RunResult

LOADS = {"2": "2", "12": "12"}  # sessions at once: sessions in all
KV_TOKENS, MAX_MODEL_LEN, TOKEN_SCALE, TIME_SCALE, GAP_CAP_S = 16384, 8000, 0.0625, 0.02, 60
BLOCK_TOKENS = 32
FIGURES = (("token hit ratio", 0.02), ("evicted blocks", 0.10), ("LLM time a session (s)", 0.20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    records = options.output / "records"
    records.mkdir(parents=True, exist_ok=True)
    load = [
        *("--max-model-len", MAX_MODEL_LEN, "--token-scale", TOKEN_SCALE),
        *("--time-scale", TIME_SCALE, "--gap-cap-s", GAP_CAP_S, "--kv-tokens", KV_TOKENS),
        *("--seeds", options.seeds),
    ]
    if options.traces is not None:
        load += ["--traces", options.traces]
    engine = options.output / "truth-engine.json"
    points = ["--concurrency", *LOADS, "--sessions", *LOADS.values()]
    holdfast("demo", *load, *points, "--records", records, "--json", engine)
    profile = options.output / "truth-profile.toml"
    light = records / f"vllm-default-c{next(iter(LOADS))}-s0.jsonl"
    holdfast("profile", "calibrate", light, "--base", "cpu-tiny", "--out", profile)
    simulated: list[RunResult] = []
    for concurrency, num_sessions in LOADS.items():
        path = options.output / f"truth-simulated-{concurrency}.json"
        holdfast(
            *("simulate", *load, "--concurrency", concurrency, "--sessions", num_sessions),
            *("--profile", profile, "--policies", "vllm-default,holdfast"),
            *("--block-size", BLOCK_TOKENS, "--jobs", 1, "--json", path),
        )
        simulated += read(path)
    table = compare(read(engine), simulated)
    print(table)
    (options.output / "simulator_truth.md").write_text(table)


def holdfast(*arguments: object) -> None:
    """Run a command of Holdfast's."""
    command = [sys.executable, "-m", "holdfast", *map(str, arguments)]
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True)


def read(path: Path) -> list[RunResult]:
    """The runs of a document."""
    return msgspec.json.decode(path.read_bytes(), type=RunDocument).runs


def compare(engine: list[RunResult], simulated: list[RunResult]) -> str:
    """A markdown table, one line a run and figure."""
    found = {(run.policy, run.seed, run.concurrency): run for run in simulated}
    lines = ["| policy | sessions at once | seed | figure | engine | simulator | off by | |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for run in engine:
        twin = found[run.policy, run.seed, run.concurrency]
        for (label, limit), real, made_up in zip(FIGURES, figures(run), figures(twin), strict=True):
            off = abs(made_up - real) / (1.0 if label == FIGURES[0][0] else max(real, 1e-9))
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
