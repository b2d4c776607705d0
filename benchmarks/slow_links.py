"""Simulates host tiers over links that are too slow for them.

python benchmarks/slow_links.py --traces PATH [--seeds N] [--jobs N] [--output DIR]

The load of `tiers.py` on its H100, whose link to host memory is given other speeds: its own, as
fast as computing the same KV (about 5 GB/s), half of that and an eightieth. Host memory for
nothing, for as many tokens as the KV cache holds, or for three times as many. Stock vLLM, which
copies always, is there on the link's own speed only.
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
from holdfast.sim.profile_file import load_profile

PROFILE = "h100-llama3.1-8b"
KV_TOKENS = 60_000
LOAD = (
    *("--kv-tokens", str(KV_TOKENS), "--block-size", "16", "--max-model-len", "24000"),
    *("--token-scale", "0.25", "--time-scale", "0.25", "--gap-cap-s", "120"),
    *("--concurrency", "12", "--sessions", "24"),
)
OWN_GB_PER_S = 63.0
ROWS = (
    *(("holdfast", 0, OWN_GB_PER_S), ("holdfast", 1, OWN_GB_PER_S), ("holdfast", 3, OWN_GB_PER_S)),
    *(("holdfast", 3, 5.0), ("holdfast", 1, 2.5), ("holdfast", 3, 2.5), ("holdfast", 3, 0.06)),
    *(("vllm-default", 0, OWN_GB_PER_S), ("vllm-default", 3, OWN_GB_PER_S)),
)

Part = tuple[str, int, float, Path]
"""Policy, size of the tier in caches, speed of the link (GB/s), file of the result."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    parts = list(_parts(options.output / "parts"))
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda part: _run(part, options), parts):
            pass
    traces = "generated" if options.traces is None else options.traces.name
    stem = options.output / f"slow_links-{traces}"
    documents = {path.stem: msgspec.json.decode(path.read_bytes()) for *_, path in parts}
    stem.with_suffix(".json").write_bytes(msgspec.json.encode(documents))
    text = "\n".join(_table(parts)) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(text)


def _parts(directory: Path) -> Iterator[Part]:
    for policy, size, speed in ROWS:
        yield policy, size, speed, directory / f"link-{speed:g}-{size}-{policy}.json"


def _run(part: Part, options: argparse.Namespace) -> None:
    policy, size, speed, path = part
    if path.exists():
        return
    profile = msgspec.structs.replace(load_profile(PROFILE), host_link_bytes_per_s=speed * 1e9)
    profile_file = path.with_suffix(".toml")
    profile_file.write_text(profile.to_toml())
    traces = [] if options.traces is None else ["--traces", str(options.traces)]
    command = [
        *(sys.executable, "-m", "holdfast", "simulate", *traces),
        *("--profile", str(profile_file), "--policies", policy, *LOAD),
        *("--host-tokens", str(size * KV_TOKENS), "--seeds", options.seeds),
        *("--jobs", "1", "--json", str(path)),
    ]
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _table(parts: list[Part]) -> Iterator[str]:
    """Medians over seeds; times longer than the same policy without a tier, paired by seed."""
    bases = {policy: _by_seed(path) for policy, size, _, path in parts if not size}
    columns = [
        *("policy", "host tier", "link, GB/s", "loaded tokens", "P99, s", "LLM time a session, s"),
        "LLM time, times that without a tier",
    ]
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    for policy, size, speed, path in parts:
        runs = _by_seed(path)
        ratios = [_llm_s(r) / _llm_s(b) for r, b in zip(runs, bases[policy], strict=True)]
        cells = [
            *(policy, f"{size} x cache" if size else "none", f"{speed:g}" if size else ""),
            f"{_middle([run.loaded_tokens or 0 for run in runs]):,.0f}",
            f"{_middle([_p99_s(run) for run in runs]):,.1f}",
            f"{_middle([_llm_s(run) for run in runs]):,.1f}",
            f"{_middle(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})",
        ]
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
