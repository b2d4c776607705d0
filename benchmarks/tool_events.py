"""Measures what it gains to hear of tools as they start and finish, simulated.

python benchmarks/tool_events.py --traces DIR [--seeds N] [--output DIR]

Recorded sessions whose tools have times, ten at once on one H100 with Llama-3.1-8B, without and
with host memory of twice the cache; gaps are cut to 120 s. `nothing`: the engine knows neither what
ends a turn nor when its tool has finished. `turn ends`: it reads from the answer what ends a turn,
as it does by itself. `tool events`: the client also tells when tools have finished.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from holdfast.report.manifest import run_manifest
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile_file import load_profile
from holdfast.traces.digest import sessions_digest
from holdfast.traces.selection import SessionSelection
from holdfast.vllm.simulator.run import simulate

PROFILE = "h100-llama3.1-8b"
VARIANTS = ("nothing", "turn ends", "tool events")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--sessions", type=int, default=16)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    if options.traces is None:
        print("left out: needs --traces, recorded sessions with the times of tools")
        return
    selection = SessionSelection(
        num_sessions=options.sessions, gap_cap_s=120.0, max_model_len=200_000
    )
    workload = Workload(options.traces, selection)
    rows: list[dict[str, Any]] = []
    for seed, has_tier, variant in product(range(options.seeds), (False, True), VARIANTS):
        rows.append(_row(workload, options.concurrency, seed, variant, has_tier=has_tier))
        print(rows[-1], flush=True)
    digests = {
        f"sessions-{seed}": sessions_digest(workload.sessions(seed).sessions)
        for seed in range(options.seeds)
    }
    names = ("sessions", "concurrency", "seeds")
    arguments = {name: getattr(options, name) for name in names}
    manifest = run_manifest(arguments=arguments, runs=(), digests=digests, profile=PROFILE)
    manifest["seeds"] = list(range(options.seeds))
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"manifest": manifest, "runs": rows}
    (options.output / "tool_events.json").write_text(json.dumps(document, indent=1) + "\n")
    text = "".join(f"{line}\n" for line in _table(rows))
    (options.output / "tool_events.md").write_text(text)
    print(text)


def _row(
    workload: Workload, concurrency: int, seed: int, variant: str, *, has_tier: bool
) -> dict[str, Any]:
    profile = load_profile(PROFILE)
    result = simulate(
        RunPlan(
            policy="holdfast",
            seed=seed,
            workload=workload,
            options=SimulationOptions(
                concurrency,
                session_ids=True,
                turn_ends=variant != "nothing",
                tool_events=variant == "tool events",
            ),
            profile=profile,
            kv_tokens=profile.kv_tokens,
            block_tokens=profile.block_size_tokens,
            host_tokens=2 * profile.kv_tokens if has_tier else 0,
        )
    )
    assert result.session_llm_time_s is not None and result.ttft_s is not None
    return {
        "seed": seed,
        "host tier": has_tier,
        "told": variant,
        "LLM time (s)": result.session_llm_time_s.mean,
        "TTFT mean (s)": result.ttft_s.mean,
        "TTFT p99 (s)": result.ttft_s.p99,
        "hit ratio": result.token_hit_ratio,
    }


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Medians over seeds; in parentheses times better than `turn ends`, by seed."""
    figures = ("LLM time (s)", "TTFT mean (s)", "TTFT p99 (s)")
    yield f"| host tier | told | {' | '.join(figures)} | hit ratio |"
    yield "|---|---|" + "---:|" * 4
    for has_tier, variant in product((False, True), VARIANTS):
        own, base = (
            [row for row in rows if (row["host tier"], row["told"]) == (has_tier, told)]
            for told in (variant, "turn ends")
        )
        cells = []
        for name in figures:
            gains = (b[name] / a[name] for a, b in zip(own, base, strict=True))
            by_seed = ", ".join(f"{gain:.2f}x" for gain in gains)
            cells.append(f"{median(row[name] for row in own):.2f} ({by_seed})")
        hits = median(row["hit ratio"] for row in own)
        tier = "twice the cache" if has_tier else "none"
        yield f"| {tier} | {variant} | {' | '.join(cells)} | {hits:.3f} |"


if __name__ == "__main__":
    main()
