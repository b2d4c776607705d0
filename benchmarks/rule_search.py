"""Compares rules that know the future, to find a bound that no policy beats.

python benchmarks/rule_search.py --traces PATH [--traces PATH] [--quick] [--seeds N] [--jobs N]
    [--output DIR]

Runs every rule and the policies that did best past the cliff, where sessions live at once fill the
cache two to four times. The table has the mean LLM time of a session as a multiple of that of the
best rule of the same seed, geometric mean over seeds, and how often each was the best; then how far
Holdfast is from the best rule, and the best rule from the lower bound of `sim/llm_time_bound.py`.
`--quick` runs one seed on one engine.

Runs of one policy on one load are kept under DIR/parts and not run again, so that an interrupted
benchmark continues.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import geometric_mean

from holdfast.core.results import RunDocument
from holdfast.policies.registry import policy_spec
from holdfast.policies.spec import Need
from holdfast.report.document import read_document, write_document
from holdfast.sim.llm_time_bound import llm_time_bound_s
from holdfast.sim.plan import Workload
from holdfast.sim.profile_file import load_profile
from holdfast.sim.replays import Replays
from holdfast.traces.selection import SessionSelection

LOADS = (("h100-llama3.1-8b", 20, 32), ("2xh200-qwen2.5-coder-32b", 18, 20))
RULES = (
    "clairvoyant",
    "shortest-remaining",
    "true-reservations",
    "true-reservations:hold_s=inf",
    "true-reservations:order=remaining",
    "true-reservations:hold_s=20:order=remaining",
    "cachewise-oracle+working-set",
)
POLICIES = ("holdfast", "vllm-default", "cachewise", "continuum", "thunderagent")
GAP_CAP_S = 120.0
MAX_MODEL_LEN = 200_000

Load = tuple[str, int, int]
Means = dict[int, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path, action="append", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    (options.output / "parts").mkdir(parents=True, exist_ok=True)
    loads = LOADS[:1] if options.quick else LOADS
    seeds = 1 if options.quick else options.seeds
    with ThreadPoolExecutor(options.jobs) as pool:
        for traces in options.traces:
            commands = list(_commands(traces, loads, seeds, options.output))
            list(pool.map(_run, commands))
            _merge(traces, loads, seeds, options.output)


def _part(output: Path, traces: Path, load: Load, policy: str, seed: int) -> Path:
    profile, concurrency, _ = load
    stem = f"rule_search-{traces.name}-{profile}-{concurrency}-{policy}-{seed}"
    return output / "parts" / f"{stem}.json"


def _commands(
    traces: Path, loads: tuple[Load, ...], seeds: int, output: Path
) -> Iterator[list[str]]:
    """The runs that are missing, whole seeds first."""
    for seed in range(seeds):
        for load in loads:
            profile, concurrency, num_sessions = load
            for policy in (*POLICIES, *RULES):
                path = _part(output, traces, load, policy, seed)
                if path.exists():
                    continue
                yield [
                    *(sys.executable, "-m", "holdfast", "simulate", "--traces", str(traces)),
                    *("--profile", profile, "--policies", policy, "--seed", str(seed)),
                    *("--concurrency", str(concurrency), "--sessions", str(num_sessions)),
                    *("--gap-cap-s", str(GAP_CAP_S), "--max-model-len", str(MAX_MODEL_LEN)),
                    *("--jobs", "1", "--json", str(path)),
                ]


def _run(command: list[str]) -> None:
    print("$ holdfast", *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _merge(traces: Path, loads: tuple[Load, ...], seeds: int, output: Path) -> None:
    """Write one document and one table of a trace set."""
    documents, lines = [], []
    for load in loads:
        means: Means = {}
        for seed in range(seeds):
            for policy in (*POLICIES, *RULES):
                document = read_document(_part(output, traces, load, policy, seed))
                documents.append(document)
                (run,) = document.runs
                assert run.session_llm_time_s is not None
                means.setdefault(seed, {})[policy] = run.session_llm_time_s.mean
        floors_s = {seed: _bound_s(traces, load, seed) for seed in means}
        lines.extend(_table(load, means, floors_s))
    stem = output / f"rule_search-{traces.name}"
    runs = [run for document in documents for run in document.runs]
    manifest = {"parts": [document.manifest for document in documents[:1]]}
    write_document(stem.with_suffix(".json"), RunDocument(manifest=manifest, runs=runs))
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print(stem.with_suffix(".md").read_text())


def _bound_s(traces: Path, load: Load, seed: int) -> float:
    name, concurrency, num_sessions = load
    selection = SessionSelection(num_sessions, gap_cap_s=GAP_CAP_S, max_model_len=MAX_MODEL_LEN)
    sessions = Workload(traces, selection).sessions(seed).sessions
    profile = load_profile(name)
    replays = Replays(sessions, 1.0, sessions[0].block_size_tokens)
    return llm_time_bound_s(replays, profile, profile.kv_tokens, concurrency)


def _table(load: Load, means: Means, floors_s: dict[int, float]) -> list[str]:
    """The rules of one load, the best first."""
    profile, concurrency, num_sessions = load
    best = {seed: min(of_seed.values()) for seed, of_seed in means.items()}
    times_best = {
        policy: geometric_mean(means[seed][policy] / best[seed] for seed in means)
        for policy in (*POLICIES, *RULES)
    }
    lines = [
        f"## {profile}, {concurrency} of {num_sessions} sessions at once",
        "",
        "| policy | knows the future | LLM time of a session (s), by seed | times the best "
        "| best in seeds |",
        "|---|---|---|---|---|",
    ]
    for policy in sorted(times_best, key=times_best.__getitem__):
        knows = "yes" if Need.FUTURE in policy_spec(policy).needs else ""
        by_seed = ", ".join(f"{means[seed][policy]:,.0f}" for seed in means)
        num_best = sum(means[seed][policy] == best[seed] for seed in means)
        lines.append(
            f"| {policy} | {knows} | {by_seed} | {times_best[policy]:.2f} | {num_best or ''} |"
        )
    times_floor = geometric_mean(best[seed] / floors_s[seed] for seed in means)
    floors = ", ".join(f"{floors_s[seed]:,.0f}" for seed in means)
    lines += [f"| lower bound | | {floors} | {1 / times_floor:.2f} | |", ""]
    return lines


if __name__ == "__main__":
    main()
