"""What a host tier below the KV cache brings, simulated: stock vLLM with it, and Holdfast with it.

python benchmarks/tiers.py --traces PATH [--seeds N] [--jobs N] [--output DIR]

Coding agents past the cliff on one H100 with Llama-3.1-8B: 12 of 24 sessions at once, their tokens
and gaps and the KV cache cut to about a quarter, so that a run takes seconds. Host memory for
nothing, for as many tokens as the KV cache holds, for twice, three times and ten times as many.
Stock vLLM offloads with its own connector and its own LRU; Holdfast with the same connector.
`all-kept` is a cache that never runs full. Runs that are under DIR/parts are not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from holdfast.core.results import RunResult
from holdfast.report.document import read_document

PROFILE = "h100-llama3.1-8b"
KV_TOKENS = 60_000
LOAD = (
    *("--kv-tokens", str(KV_TOKENS), "--block-size", "16", "--max-model-len", "24000"),
    *("--token-scale", "0.25", "--time-scale", "0.25", "--gap-cap-s", "120"),
    *("--concurrency", "12", "--sessions", "24"),
)
SIZES = (0, 1, 2, 3, 10)
POLICIES = ("vllm-default", "holdfast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    parts = dict(_parts(options))
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(_run, (command for command in parts.values() if command)):
            pass
    traces = "generated" if options.traces is None else options.traces.name
    stem = options.output / f"tiers-{traces}"
    documents = {path.stem: msgspec.json.decode(path.read_bytes()) for _, _, path in parts}
    stem.with_suffix(".json").write_bytes(msgspec.json.encode(documents))
    text = "\n".join(_table(list(parts))) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(text)


def _parts(options: argparse.Namespace) -> Iterator[tuple[tuple[str, int, Path], list[str]]]:
    """Policy, size of the tier in caches and file of each run, with its command if it is to run."""
    traces = [] if options.traces is None else ["--traces", str(options.traces)]
    for size in SIZES:
        for policy in (*POLICIES, *(() if size else ("all-kept",))):
            path = options.output / "parts" / f"tiers-{size}-{policy}.json"
            command = [
                *(sys.executable, "-m", "holdfast", "simulate", *traces),
                *("--profile", PROFILE, "--policies", policy, *LOAD),
                *("--host-tokens", str(size * KV_TOKENS), "--seeds", options.seeds),
                *("--jobs", "1", "--json", str(path)),
            ]
            yield (policy, size, path), [] if path.exists() else command


def _run(command: list[str]) -> None:
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _table(parts: list[tuple[str, int, Path]]) -> Iterator[str]:
    """Medians over seeds; gains over stock without a tier and with the same one, paired by seed."""
    runs = {(policy, size): _by_seed(path) for policy, size, path in parts}
    columns = [
        *("host tier", "policy", "hit ratio", "loaded tokens", "LLM time a session, s", "P99, s"),
        *("makespan, s", "LLM time, times shorter than stock without", "than stock with it"),
    ]
    yield "| " + " | ".join(columns) + " |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (policy, size), own in runs.items():
        cells = [f"{size} x cache" if size else "none", policy]
        cells.append(f"{_middle([run.token_hit_ratio or 0.0 for run in own]):.3f}")
        cells.append(f"{_middle([run.loaded_tokens or 0 for run in own]):,.0f}")
        cells.append(f"{_middle([_llm_s(run) for run in own]):,.0f}")
        cells.append(f"{_middle([_p99_s(run) for run in own]):,.1f}")
        cells.append(f"{_middle([run.makespan_s or 0.0 for run in own]):,.0f}")
        for base in (runs["vllm-default", 0], runs["vllm-default", size]):
            gains = [_llm_s(b) / _llm_s(run) for b, run in zip(base, own, strict=True)]
            cells.append(f"{_middle(gains):.2f} ({', '.join(f'{gain:.2f}' for gain in gains)})")
        yield "| " + " | ".join(cells) + " |"


def _by_seed(path: Path) -> list[RunResult]:
    return sorted(read_document(path).runs, key=lambda run: run.seed)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _llm_s(run: RunResult) -> float:
    assert run.session_llm_time_s is not None
    return run.session_llm_time_s.mean


def _p99_s(run: RunResult) -> float:
    assert run.request_latency_s is not None
    return run.request_latency_s.p99


if __name__ == "__main__":
    main()
