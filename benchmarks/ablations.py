"""Simulates the same sessions with parts of Holdfast switched off.

python benchmarks/ablations.py --traces PATH [--setup NAME] [--seeds N] [--jobs N] [--output DIR]

Ratios to stock vLLM on the same sessions, better above 1: median of the seeds, all in brackets.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from holdfast.core.results import RunResult
from holdfast.report.document import read_document

VARIANTS: dict[str, dict[str, object]] = {
    "everything": {},
    "guard off": {"predictions": "always"},
    "no prediction": {"predictions": "never"},
    "admission only": {"eviction": "lru"},
    "order of eviction only": {"admission": "fcfs"},
    "shorter waits (max_wait_ratio 0.5)": {"max_wait_ratio": 0.5},
}
SETUPS = {
    "h100": ("--profile", "h100-llama3.1-8b", "--concurrency", "10", "--sessions", "20"),
    "h200": ("--profile", "2xh200-qwen2.5-coder-32b", "--concurrency", "18", "--sessions", "20"),
}
LIMITS = ("--gap-cap-s", "120", "--max-model-len", "200000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--setup", choices=list(SETUPS), action="append")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    for name in options.setup or SETUPS:
        with ThreadPoolExecutor(options.jobs) as pool:
            stock = pool.submit(_runs, name, "stock", None, options)
            variants = {
                label: pool.submit(_runs, name, str(number), settings, options)
                for number, (label, settings) in enumerate(VARIANTS.items())
            }
        lines = [
            "| parts | hit ratio | evicted | LLM time a session | P99 latency |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(label, stock.result(), runs.result()) for label, runs in variants.items()]
        text = "\n".join(lines) + "\n"
        traces = "generated" if options.traces is None else options.traces.name
        stem = options.output / f"ablations-{traces}-{name}"
        stem.with_suffix(".md").write_text(text)
        # Every run with its manifest: `stock`, then the parts in the order of the table.
        parts = sorted((options.output / "parts").glob(f"ablations-{name}-*.json"))
        documents = {path.stem: msgspec.json.decode(path.read_bytes()) for path in parts}
        stem.with_suffix(".json").write_bytes(msgspec.json.encode(documents))
        print(text, flush=True)


def _runs(
    setup: str, part: str, settings: dict[str, object] | None, options: argparse.Namespace
) -> list[RunResult]:
    """Run one variant on every seed; stock vLLM where it has no settings."""
    stem = options.output / "parts" / f"ablations-{setup}-{part}"
    path = stem.with_suffix(".json")
    if not path.exists():
        command = [*(sys.executable, "-m", "holdfast", "simulate"), *SETUPS[setup], *LIMITS]
        command += ["--policies", "vllm-default" if settings is None else "holdfast"]
        command += ["--seeds", options.seeds, "--jobs", "1", "--json", str(path)]
        if options.traces is not None:
            command += ["--traces", str(options.traces)]
        if settings:
            config = stem.with_suffix(".toml")
            lines = [f"{key} = {value!r}\n" for key, value in settings.items()]
            config.write_text("".join(["[holdfast]\n", *lines]))
            command += ["--holdfast-config", str(config)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return sorted(read_document(path).runs, key=lambda run: run.seed)


def _row(label: str, stock: list[RunResult], runs: list[RunResult]) -> str:
    hits = sorted(run.token_hit_ratio or 0.0 for run in runs)
    cells = [label, f"{hits[len(hits) // 2]:.2f}"]
    for figure in (_evicted, _llm_s, _p99_s):
        ratios = sorted(figure(b) / max(figure(r), 1e-9) for b, r in zip(stock, runs, strict=True))
        rest = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        cells.append(f"{ratios[len(ratios) // 2]:.2f}x ({rest})")
    return "| " + " | ".join(cells) + " |"


def _evicted(run: RunResult) -> float:
    return run.evicted_blocks or 0.0


def _llm_s(run: RunResult) -> float:
    assert run.session_llm_time_s is not None
    return run.session_llm_time_s.mean


def _p99_s(run: RunResult) -> float:
    assert run.request_latency_s is not None
    return run.request_latency_s.p99


if __name__ == "__main__":
    main()
