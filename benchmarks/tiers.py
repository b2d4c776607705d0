"""Simulates tiers below the KV cache, with stock vLLM and with Holdfast.

python benchmarks/tiers.py --traces PATH [--setup NAME] [--seeds N] [--jobs N] [--output DIR]

`quarter`: 12 of 24 sessions at once on one H100 with Llama-3.1-8B, their tokens and gaps and the KV
cache cut to about a quarter, so that a run takes seconds. `full`: 36 sessions at once on 2x H200
with Qwen2.5-Coder-32B, nothing cut. `slow-disk` and `slow-link`: `quarter` with a disk of 1.5 GB/s
and a host link of 2 GB/s.

Tiers hold so many times what the KV cache holds. Stock vLLM offloads with its own connector and its
own LRU, which is a hierarchical cache without prediction; Holdfast with the same connector.
`all-kept` is a cache that never runs full, `stateless` no cache, `clairvoyant-prefetch` Holdfast
with known return times, and `no-prefetch` Holdfast without prefetches. Runs under DIR/parts are not
run again.
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

from holdfast.core.results import RunResult
from holdfast.report.document import read_document
from holdfast.sim.profile_file import load_profile

STOCK = "vllm-default"


@dataclass(frozen=True, slots=True)
class Setup:
    """A load, and the runs at it.

    Attributes:
        profile: Of the engine.
        kv_tokens: Size of its KV cache.
        load: Further arguments of `holdfast simulate`.
        tiers: Sizes of host and disk, in KV caches.
        policies: Run with each of the tiers.
        others: Policies run with some of the tiers only.
        changes: Fields of the profile that differ.
    """

    profile: str
    kv_tokens: int
    load: tuple[str, ...]
    tiers: tuple[tuple[int, int], ...]
    policies: tuple[str, ...] = (STOCK, "holdfast")
    others: tuple[tuple[str, tuple[int, int]], ...] = ()
    changes: tuple[tuple[str, float], ...] = ()


_QUARTER = (
    *("--block-size", "16", "--max-model-len", "24000", "--token-scale", "0.25"),
    *("--time-scale", "0.25", "--gap-cap-s", "120", "--concurrency", "12", "--sessions", "24"),
)
_FULL = (
    *("--max-model-len", "200000", "--gap-cap-s", "120"),
    *("--concurrency", "36", "--sessions", "36"),
)
_NONE = (0, 0)
_DISK = (1, 10)
_PREFETCHES = (("clairvoyant-prefetch", _DISK), ("no-prefetch", _DISK))
SETUPS = {
    "quarter": Setup(
        *("h100-llama3.1-8b", 60_000, _QUARTER),
        tiers=(_NONE, (1, 0), (2, 0), (3, 0), (10, 0), _DISK),
        others=(("all-kept", _NONE), *_PREFETCHES),
    ),
    "full": Setup(
        *("2xh200-qwen2.5-coder-32b", 755_424, _FULL),
        tiers=(_NONE, (1, 0), (3, 0), _DISK),
        others=(
            *(("stateless", _NONE), ("all-kept", _NONE), ("clairvoyant-prefetch", _DISK)),
            *(("kvflow", (3, 0)), ("infercept", (3, 0))),
        ),
    ),
    "slow-disk": Setup(
        *("h100-llama3.1-8b", 60_000, _QUARTER),
        tiers=(_NONE, _DISK),
        others=_PREFETCHES,
        changes=(("disk_bytes_per_s", 1.5e9),),
    ),
    "slow-link": Setup(
        *("h100-llama3.1-8b", 60_000, _QUARTER),
        tiers=(_NONE, (10, 0)),
        others=(("clairvoyant-prefetch", (10, 0)), ("no-prefetch", (10, 0))),
        changes=(("host_link_bytes_per_s", 2e9),),
    ),
}

Run = tuple[str, tuple[int, int]]  # policy, and its tiers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--setup", choices=list(SETUPS), default="quarter")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    parts = {run: (path, command) for run, path, command in _parts(options)}
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(_run, (command for _, command in parts.values() if command)):
            pass
    traces = "generated" if options.traces is None else options.traces.name
    stem = options.output / f"tiers-{options.setup}-{traces}"
    documents = {path.stem: msgspec.json.decode(path.read_bytes()) for path, _ in parts.values()}
    stem.with_suffix(".json").write_bytes(msgspec.json.encode(documents))
    runs = {run: _by_seed(path) for run, (path, _) in parts.items()}
    text = "\n".join(_table(runs)) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(text)


def _parts(options: argparse.Namespace) -> Iterator[tuple[Run, Path, list[str]]]:
    """Each run with its file, and its command where the file is missing."""
    setup = SETUPS[options.setup]
    traces = [] if options.traces is None else ["--traces", str(options.traces)]
    profile = _profile(setup, options.output / "parts" / f"{options.setup}.toml")
    runs = [(policy, tiers) for tiers in setup.tiers for policy in setup.policies]
    for policy, (host, disk) in (*runs, *setup.others):
        path = options.output / "parts" / f"{options.setup}-{host}-{disk}-{policy}.json"
        command = [
            *(sys.executable, "-m", "holdfast", "simulate", *traces, *_chosen(policy, path)),
            *("--profile", profile, *setup.load),
            *("--kv-tokens", str(setup.kv_tokens)),
            *("--host-tokens", str(host * setup.kv_tokens)),
            *("--disk-tokens", str(disk * setup.kv_tokens)),
            *("--seeds", options.seeds, "--jobs", "1", "--json", str(path)),
        ]
        yield (policy, (host, disk)), path, [] if path.exists() else command


def _chosen(policy: str, path: Path) -> list[str]:
    """Arguments that choose a policy, or Holdfast with a setting that differs."""
    if policy != "no-prefetch":
        return ["--policies", policy]
    settings = path.with_suffix(".toml")
    settings.write_text("[holdfast]\nprefetch = false\n")
    return ["--policies", "holdfast", "--holdfast-config", str(settings)]


def _profile(setup: Setup, path: Path) -> str:
    """Name of the set-up's profile, or of a file that has it with its changes."""
    if not setup.changes:
        return setup.profile
    changed = msgspec.structs.replace(load_profile(setup.profile), **dict(setup.changes))
    path.write_text(changed.to_toml())
    return str(path)


def _run(command: list[str]) -> None:
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _table(runs: dict[Run, list[RunResult]]) -> Iterator[str]:
    """Medians over seeds; gains over stock without a tier and with the same, paired by seed."""
    columns = [
        *("host, disk", "policy", "from cache", "loaded", "read", "prefetches", "LLM time, s"),
        *("P99, s", "input tokens/s", "LLM time, times shorter than stock without"),
        "than stock with the same",
    ]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for (policy, tiers), own in runs.items():
        cells = ["none" if tiers == _NONE else f"{tiers[0]}x, {tiers[1]}x", policy]
        cells.append(f"{_middle([run.token_hit_ratio or 0.0 for run in own]):.3f}")
        cells.append(f"{_middle([run.loaded_tokens or 0 for run in own]):,.0f}")
        cells.append(f"{_middle([run.disk_loaded_tokens or 0 for run in own]):,.0f}")
        cells.append(_prefetches(own))
        cells.append(f"{_middle([_llm_s(run) for run in own]):,.0f}")
        cells.append(f"{_middle([_p99_s(run) for run in own]):,.1f}")
        cells.append(f"{_middle([run.prompt_tokens_per_s or 0.0 for run in own]):,.0f}")
        for base in (runs[STOCK, _NONE], runs.get((STOCK, tiers), [])):
            gains = [_llm_s(b) / _llm_s(run) for b, run in zip(base, own, strict=False)]
            cells.append(f"{_middle(gains):.2f} ({', '.join(f'{gain:.2f}' for gain in gains)})")
        yield "| " + " | ".join(cells) + " |"


def _prefetches(runs: list[RunResult]) -> str:
    """Outcomes of all seeds' prefetches: used, late, wasted."""
    counts = [run.prefetches for run in runs if run.prefetches]
    if not counts:
        return "-"
    names = ("used", "late", "wasted")
    return " / ".join(str(sum(count.get(name, 0) for count in counts)) for name in names)


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
