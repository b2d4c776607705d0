"""Compares `holdfast plan`'s estimate of the cliff with vLLM's scheduler in the simulator.

python benchmarks/plan_check.py [--traces PATH] [--profile NAME] [--gap-caps S,...]
  [--host-gib GIB,...] [--seeds N]

The cliff is the number of sessions at once at which half of what an infinite cache hits is lost,
searched for with each seed. The public rule of thumb stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from holdfast.cli.plan_sources import capacity_run_plan, seeded_worker
from holdfast.core.results import RunResult
from holdfast.report.manifest import run_manifest
from holdfast.sim.capacity import HALF_SHARE, estimate_crossing, search, span_of
from holdfast.sim.capacity_runs import kept_share
from holdfast.sim.hit_estimate import CacheSize
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.sim.turn_mix import TurnMix
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection
from holdfast.workload.synthetic import iterate_sessions

RULE = (0.75, 0.87)
GENERATED = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--profile", default="h100-llama3.1-8b")
    parser.add_argument("--gap-caps", default="60,10")
    parser.add_argument("--host-gib", default="0", help="sizes of a host tier, each with each gap")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    profile = load_profile(options.profile)
    recorded = list(
        islice(iterate_sessions(0), GENERATED)
        if options.traces is None
        else read_sessions(options.traces)
    )
    source = "generated" if options.traces is None else options.traces.name
    runs: list[RunResult] = []
    found = []
    for cap in options.gap_caps.split(","):
        sessions = SessionSelection(gap_cap_s=float(cap)).select(recorded).sessions
        for host_gib in map(float, options.host_gib.split(",")):
            load = (sessions, float(cap), host_gib)
            found.append(check(profile, load, options.seeds, runs))
            print(json.dumps(found[-1]), flush=True)
    arguments = {
        "traces": source,
        "profile": options.profile,
        "gap_caps": options.gap_caps,
        "host_gib": options.host_gib,
        "seeds": options.seeds,
    }
    digests = {"sessions": sessions_digest(recorded)}
    manifest = run_manifest(arguments=arguments, runs=runs, digests=digests, profile=profile.name)
    content = {"manifest": manifest, "checks": found, "runs": msgspec.to_builtins(runs)}
    name = f"plan_check-{source}"
    (options.output / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    text = table(found)
    (options.output / f"{name}.md").write_text(text)
    print(text)


def check(
    profile: CostProfile,
    load: tuple[Sequence[Session], float, float],
    num_seeds: int,
    runs: list[RunResult],
) -> dict[str, Any]:
    """The estimated and the simulated cliff of sessions, gaps up to (s), a host tier (GiB)."""
    sessions, cap_s, host_gib = load
    kv_tokens = profile.kv_tokens
    host_tokens = int(host_gib * 2**30 / profile.kv_bytes_per_token)
    mix = TurnMix.of(sessions, kv_tokens)
    estimate = estimate_crossing(mix, profile, CacheSize(kv_tokens, host_tokens), HALF_SHARE)
    assert estimate is not None, "no load loses half of the hits"
    first = capacity_run_plan(profile, kv_tokens, sessions, cap_s)
    first = replace(first, host_tokens=host_tokens)
    worker = seeded_worker(sessions, kv_tokens)
    most = round(4 * estimate.median)
    cliffs: list[float | None] = []
    for seed in range(num_seeds):

        def share_at(load: int, seed: int = seed) -> float:
            at_load = replace(first.options, concurrency=load)
            runs.append(worker(replace(first, seed=seed, options=at_load)))
            return kept_share(runs[-1])

        _, (crossed,) = search(share_at, estimate.median, most, (HALF_SHARE,))
        cliffs.append(crossed)
    simulated = span_of(cliffs, most)
    assert simulated is not None, "no load loses half of the hits"
    rule = [share * kv_tokens / mix.mean_prompt_tokens for share in RULE]
    return {
        "gap_cap_s": cap_s,
        "host_gib": host_gib,
        "mean_prompt_tokens": mix.mean_prompt_tokens,
        "kv_tokens": kv_tokens,
        "estimate": msgspec.to_builtins(estimate),
        "simulated": msgspec.to_builtins(simulated),
        "simulated_by_seed": cliffs,
        "rule": rule,
        "error": estimate.median / simulated.median - 1,
        "rule_error": statistics.mean(rule) / simulated.median - 1,
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The checks as Markdown."""
    lines = [
        "| gaps up to | host tier | estimate | simulated, median (seeds) | error "
        "| rule of thumb | its error |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        estimate, simulated = one["estimate"], one["simulated"]
        rule = f"{one['rule'][0]:.1f} to {one['rule'][1]:.1f} | {one['rule_error']:+.0%}"
        lines.append(
            f"| {one['gap_cap_s']:.0f} s | {one['host_gib']:.0f} GiB "
            f"| {estimate['median']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f}) "
            f"| {simulated['median']:.1f} ({simulated['low']:.1f} to {simulated['high']:.1f}) "
            f"| {one['error']:+.0%} | {'- | -' if one['host_gib'] else rule} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
