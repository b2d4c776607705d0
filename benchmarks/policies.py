"""Compares all policies in the simulator, on the set-ups that papers used.

python benchmarks/policies.py --traces PATH [--setup NAME] [--seeds N] [--jobs N] [--output DIR]

`cachewise`: N sessions started together on 2x H200 with Qwen2.5-Coder-32B, chunks of 512, N from 5
to 40. `cliff`: 4 to 32 sessions live at once on one H100 with Llama-3.1-8B. `overcommit`: 20
sessions, half of them at once, every policy. `sweep-h100` and `sweep-h200`: from half of what the
cache holds to several times as much, against the policies that did best.

Runs of one policy at one load are kept under DIR/parts and not run again, so that an interrupted
benchmark continues.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from holdfast.core.results import RunDocument
from holdfast.policies.registry import policy_names
from holdfast.report.cells import format_cliff
from holdfast.report.comparison import compare, policy_order
from holdfast.report.curves import cliffs
from holdfast.report.document import read_document, write_document
from holdfast.report.simulation_report import simulation_caption, simulation_tables
from holdfast.report.terminal import terminal_tables

BEST = (
    "vllm-default",
    "cachewise",
    "continuum",
    "thunderagent",
    "holdfast",
    "clairvoyant",
    "all-kept",
)
FEW = ("stateless", "vllm-default", "cachewise", "holdfast", "clairvoyant")


@dataclass(frozen=True)
class Setup:
    """A set-up: N sessions at once out of M is the load (N, M)."""

    profile: str
    policies: tuple[str, ...]
    loads: tuple[tuple[int, int], ...]


SETUPS = {
    "cachewise": Setup("2xh200-qwen2.5-coder-32b", FEW, ((5, 5), (10, 10), (20, 20), (40, 40))),
    "cliff": Setup(
        "h100-llama3.1-8b", ("vllm-default", "holdfast"), ((4, 32), (8, 32), (16, 32), (32, 32))
    ),
    # A session of these traces holds about 85,000 tokens: a fifth or a ninth of the cache.
    "sweep-h100": Setup("h100-llama3.1-8b", BEST, ((2, 12), (5, 16), (10, 20), (20, 32), (40, 40))),
    "sweep-h200": Setup("2xh200-qwen2.5-coder-32b", BEST, ((4, 12), (9, 16), (18, 20), (36, 36))),
    "overcommit": Setup("h100-llama3.1-8b", policy_names(), ((10, 20),)),
}
DEFAULT_SETUPS = ("cachewise", "cliff", "overcommit")
LIMITS = ("--gap-cap-s", "120", "--max-model-len", "200000")
_COLUMNS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--setup", choices=list(SETUPS), action="append")
    parser.add_argument("--policies", help="Comma-separated; only these.")
    parser.add_argument("--at", help="Comma-separated; only at so many sessions at once.")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    chosen = None if options.policies is None else set(options.policies.split(","))
    for name in options.setup or DEFAULT_SETUPS:
        parts = dict(_parts(name, SETUPS[name], chosen, options))
        with ThreadPoolExecutor(options.jobs) as pool:
            for _ in pool.map(_run, (command for command in parts.values() if command)):
                pass
        _merge(options.output / f"policies-{name}", name)


def _parts(
    name: str, setup: Setup, chosen: set[str] | None, options: argparse.Namespace
) -> Iterator[tuple[Path, list[str]]]:
    """Result files, each with the command that makes it where it is missing."""
    traces = [] if options.traces is None else ["--traces", str(options.traces)]
    loads = None if options.at is None else {int(load) for load in options.at.split(",")}
    for concurrency, num_sessions in reversed(setup.loads):
        if loads is not None and concurrency not in loads:
            continue
        for policy in setup.policies:
            if chosen is not None and policy not in chosen:
                continue
            path = options.output / "parts" / f"{name}-{concurrency}-{policy}.json"
            command = [
                *(sys.executable, "-m", "holdfast", "simulate", *traces),
                *("--profile", setup.profile, "--policies", policy, *LIMITS),
                *("--concurrency", str(concurrency), "--sessions", str(num_sessions)),
                *("--seeds", options.seeds, "--jobs", "1", "--json", str(path)),
            ]
            yield path, [] if path.exists() else command


def _run(command: list[str]) -> None:
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _merge(stem: Path, name: str) -> None:
    """Write one document and one table of all finished parts of a set-up."""
    paths = sorted((stem.parent / "parts").glob(f"{name}-*.json"))
    documents = [read_document(path) for path in paths]
    runs = [run for document in documents for run in document.runs]
    manifest = {
        "parts": [document.manifest for document in documents[:1]],
        "commands": sorted({_command(document) for document in documents}),
    }
    write_document(stem.with_suffix(".json"), RunDocument(manifest=manifest, runs=runs))
    with stem.with_suffix(".txt").open("w") as file:
        console = Console(width=_COLUMNS, file=file)
        comparison = compare(runs)
        tables = simulation_tables(comparison)
        console.print(terminal_tables(tables, simulation_caption(comparison)))
        for policy in policy_order({run.policy for run in runs}):
            for cliff in cliffs(runs, policy):
                console.print(format_cliff(cliff))
    print(stem.with_suffix(".txt").read_text())


def _command(document: RunDocument) -> str:
    arguments = document.manifest["arguments"]
    return msgspec.json.encode({k: v for k, v in arguments.items() if v is not None}).decode()


if __name__ == "__main__":
    main()
