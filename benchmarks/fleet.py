"""Simulates routers of several engines on recorded sessions.

python benchmarks/fleet.py [--traces PATH] [--setups NAME,...] [--seeds N] [--output DIR]

`four` and `sixteen`: whole sessions, six at once an engine, each engine with a cache of 300,000
tokens in blocks of 512: past the cliff. `pods-N`: four engines with the cache of the public
four-pod measurement, N sessions at once a pod, gaps cut to 10 s, 30 minutes of which the first 10
do not count. Stock engines but for the last row, where `holdfast serve` runs below the gateway.

A part is one router on all seeds; an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.core.results import RunDocument, RunResult
from holdfast.report.cells import UNKNOWN
from holdfast.report.document import read_document
from holdfast.report.markdown import markdown_tables
from holdfast.report.page import write_whole
from holdfast.report.tables import Column, ReportTable, RowGroup

PROFILE = "2xh100-qwen3-coder-30b-fp8"
LIMITS = (
    *("--profile", PROFILE, "--gap-cap-s", "10", "--max-model-len", "200000"),
    *("--block-size", "512"),
)
ROUTERS = ("round-robin", "sticky", "prefix", "holdfast")
ENGINES = [("vllm-default", router) for router in ROUTERS] + [("holdfast", "holdfast")]


def past_cliff(num_engines: int) -> tuple[str, ...]:
    """Whole sessions, six at once an engine."""
    live = str(6 * num_engines)
    load = ("--engines", str(num_engines), "--concurrency", live, "--sessions", live)
    return (*LIMITS, "--kv-tokens", "300032", *load)


def pods(num_sessions: int) -> tuple[str, ...]:
    """A window of the public four-pod measurement, so many sessions at once a pod."""
    load = ("--engines", "4", "--concurrency", str(4 * num_sessions))
    return (*LIMITS, *load, "--output-scale", "1.85", "--start", "600", "--duration", "1200")


SETUPS = {
    "four": past_cliff(4),
    "sixteen": past_cliff(16),
    **{f"pods-{n}": pods(n) for n in (16, 24, 32, 48)},
}
Figure = Callable[[RunResult], float | None]
FIGURES: dict[str, Figure] = {
    "hit ratio": lambda run: run.token_hit_ratio,
    "LLM time a session, s": lambda run: _of(run.session_llm_time_s, "mean"),
    "output, tokens/s": lambda run: run.output_tokens_per_s,
    "TTFT p50, s": lambda run: _of(run.ttft_s, "p50"),
    "TTFT p90, s": lambda run: _of(run.ttft_s, "p90"),
    "TTFT p99, s": lambda run: _of(run.ttft_s, "p99"),
    "latency p99, s": lambda run: _of(run.request_latency_s, "p99"),
}


def _of(distribution: Any, name: str) -> float | None:
    return None if distribution is None else getattr(distribution, name)


def simulate(setup: str, policy: str, router: str, options: argparse.Namespace, path: Path) -> None:
    """Run one router on all seeds and write its part."""
    traces = () if options.traces is None else ("--traces", str(options.traces))
    chosen = ("--policies", policy, "--router", router, "--seeds", str(options.seeds))
    arguments = [*traces, *chosen, *SETUPS[setup]]
    command = [sys.executable, "-m", "holdfast", "simulate", *arguments, "--jobs", "1"]
    print("$ holdfast simulate", *arguments, flush=True)
    subprocess.run([*command, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)


def rows(runs: dict[tuple[str, str], Sequence[RunResult]]) -> tuple[tuple[str, ...], ...]:
    """A row a router: medians over seeds, the lowest and highest in brackets."""
    found = []
    for (policy, router), of_router in runs.items():
        cells = []
        for figure in FIGURES.values():
            values = [value for run in of_router if (value := figure(run)) is not None]
            cells.append(_cell(values))
        found.append((router, policy, *cells))
    return tuple(found)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return UNKNOWN
    digits = 3 if max(values) < 1.0 else 2 if max(values) < 100.0 else 0
    middle, low, high = statistics.median(values), min(values), max(values)
    spread = f" ({low:,.{digits}f} to {high:,.{digits}f})" if len(values) > 1 else ""
    return f"{middle:,.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--setups", default=",".join(SETUPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    parts = options.output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for setup in options.setups.split(","):
        for policy, router in ENGINES:
            path = parts / f"fleet-{setup}-{policy}-{router}.json"
            if not path.exists():
                simulate(setup, policy, router, options, path)
            write(options.output, parts)


def write(output: Path, parts: Path) -> None:
    """Write the tables and the runs of all finished parts."""
    documents: dict[str, RunDocument] = {}
    tables = []
    for setup in SETUPS:
        runs: dict[tuple[str, str], Sequence[RunResult]] = {}
        for policy, router in ENGINES:
            path = parts / f"fleet-{setup}-{policy}-{router}.json"
            if path.exists():
                documents[path.stem] = read_document(path)
                runs[policy, router] = documents[path.stem].runs
        if runs:
            columns = ("router", "engines", *FIGURES)
            seeds = max(len(each) for each in runs.values())
            title = f"{setup}, {seeds} seed{'s' if seeds > 1 else ''}"
            tables.append(
                ReportTable(title, tuple(map(Column, columns)), (RowGroup("", rows(runs)),))
            )
    (output / "fleet.md").write_text(markdown_tables(tables))
    manifests = {name: document.manifest for name, document in documents.items()}
    all_runs = {name: document.runs for name, document in documents.items()}
    content = msgspec.json.encode({"manifest": {"parts": manifests}, "runs": all_runs})
    write_whole(output / "fleet.json", msgspec.json.format(content, indent=1) + b"\n")


if __name__ == "__main__":
    main()
