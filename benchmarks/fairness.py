"""Measures how tenants share one engine, fairness on and off, simulated.

python benchmarks/fairness.py [--seeds N] [--prompts N] [--output DIR]

One H100 with Llama-3.1-8B and a KV cache of 50,000 tokens. A modest tenant has eight workers of
two tenants, four of ten; the greedy one has 40. A worker sends prompts of 4,000 to 12,000 new
tokens one after the other, so that all tenants always ask for more. Weighted, the first modest
tenant has weight 4 and all others 1.

alone: one tenant with 40 workers, half of which are coding agents that come back.
off: turns go by arrival. tenants: `fairness = "tenants"`, the default. sessions: also the workers
of each tenant alike.

Shares are of computed prompt tokens until the first worker has sent all its prompts. First tokens
are of turns sent in that time, from 15 s on: before costs are learned, turns go by arrival.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config import load_config
from holdfast.core.results import TurnRecord
from holdfast.report.manifest import run_manifest
from holdfast.sim.clock import VirtualClock
from holdfast.sim.engine import SimRequest
from holdfast.sim.fleet import Fleet
from holdfast.sim.load import SimulationOptions
from holdfast.sim.profile_file import load_profile
from holdfast.sim.replays import Replays
from holdfast.sim.simulation import Simulation
from holdfast.traces.record import Session, Turn
from holdfast.vllm.simulator.engine import SimulatedEngine
from holdfast.vllm.simulator.workerless import EngineShape

PROFILE = "h100-llama3.1-8b"
BLOCK_TOKENS = 64
KV_TOKENS = 50_000
GREEDY_WORKERS = 40
WARM_UP_S = 15.0
OUTPUT_TOKENS = 2
WEIGHT = 4.0
MODES = ("off", "tenants", "sessions")

_contents = count()


class Case(NamedTuple):
    """Tenants, the last of which is greedy.

    Attributes:
        num_tenants: All of them (count).
        workers: Of each modest tenant (count).
        weight: Weight of the first; all others have 1.
    """

    num_tenants: int
    workers: int
    weight: float = 1.0


CASES = {
    "two, equal": Case(2, 8),
    "two, weighted": Case(2, 8, WEIGHT),
    "ten, equal": Case(10, 4),
    "ten, weighted": Case(10, 4, WEIGHT),
    "alone": Case(1, 0),
}


def flood(source: random.Random, name: str, num_prompts: int) -> Session:
    """A worker that sends prompts that share nothing."""
    turns = []
    for _ in range(num_prompts):
        num_blocks = source.randint(4_000, 12_000) // BLOCK_TOKENS
        turns.append(_turn([next(_contents) for _ in range(num_blocks)], 0.0, "human"))
    return Session(name, BLOCK_TOKENS, tuple(turns), "generated")


def coding_agent(source: random.Random, name: str, num_prompts: int) -> Session:
    """A worker whose prompts grow by tool results."""
    prompt: list[int] = []
    turns = []
    for index in range(num_prompts):
        num_tokens = source.randint(500, 1_500) if index else 6_000
        prompt += [next(_contents) for _ in range(num_tokens // BLOCK_TOKENS)]
        turns.append(_turn(prompt, source.lognormvariate(0.7, 1.2) if index else 0.0, "tool"))
    return Session(name, BLOCK_TOKENS, tuple(turns), "generated")


def _turn(prompt: list[int], gap_s: float, ended_by: Any) -> Turn:
    return Turn(gap_s, len(prompt) * BLOCK_TOKENS, OUTPUT_TOKENS, tuple(prompt), ended_by=ended_by)


def workers_of(case: Case, seed: int, num_prompts: int) -> list[tuple[int, Session]]:
    """Each worker's tenant and prompts."""
    source = random.Random(f"fairness/{seed}")
    if case.num_tenants == 1:
        kinds = [flood, coding_agent] * (GREEDY_WORKERS // 2)
        return [(0, kind(source, f"{n}", num_prompts)) for n, kind in enumerate(kinds)]
    greedy = case.num_tenants - 1
    tenants = [t for t in range(greedy) for _ in range(case.workers)] + [greedy] * GREEDY_WORKERS
    source.shuffle(tenants)
    return [
        (tenant, flood(source, f"{n}", num_prompts if tenant == greedy else 3 * num_prompts))
        for n, tenant in enumerate(tenants)
    ]


class TenantEngine(SimulatedEngine):
    """A simulated engine whose requests have tenants."""

    tenants: list[int]

    def submit(self, request: SimRequest) -> None:
        """Take in a request of a tenant."""
        self._is_settled = False
        made = self.request(
            request.request_id,
            list(request.block_keys),
            request.prompt_tokens,
            request.output_tokens,
            session_id=request.session_id,
        )
        made.cache_salt = f"t{self.tenants[int(request.request_id.partition('-')[0])]}"
        self.add(made)


def run(case: Case, mode: str, seed: int, num_prompts: int) -> dict[str, Any]:
    """Simulate one case."""
    workers = workers_of(case, seed, num_prompts)
    profile = load_profile(PROFILE)
    clock = VirtualClock()
    engine = TenantEngine(
        "holdfast",
        EngineShape(
            num_blocks=KV_TOKENS // profile.block_size_tokens + 1,
            block_size_tokens=profile.block_size_tokens,
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
            max_model_len_tokens=80_000,
        ),
        lambda: clock.now_s,
        config=load_config(None, {}, {"fairness": mode, "tenant_weights": f"t0={case.weight}"}),
    )
    engine.tenants = [tenant for tenant, _ in workers]
    sessions = [session for _, session in workers]
    options = SimulationOptions(concurrency=len(sessions), session_ids=True)
    replays = Replays(sessions, 1.0, profile.block_size_tokens)
    records = Simulation(Fleet([engine], profile, clock), replays, options, seed=seed).run()
    tenant_of = {session.session_id: tenant for tenant, session in workers}
    return figures(records.turns, tenant_of, num_prompts)


def figures(turns: list[TurnRecord], tenant_of: dict[str, int], num_prompts: int) -> dict[str, Any]:
    """Shares of computed tokens, and first tokens of turns (s)."""
    last_s: dict[str, float] = {}
    for turn in turns:
        last_s[turn.session_id] = max(last_s.get(turn.session_id, 0.0), turn.sent_s)
    end_s = min(last_s.values())
    greedy = max(tenant_of.values())
    computed: dict[int, int] = dict.fromkeys(range(greedy + 1), 0)
    ttft_s: dict[int, list[float]] = {tenant: [] for tenant in computed}
    for turn in turns:
        tenant = tenant_of[turn.session_id]
        if turn.first_token_s is not None and turn.first_token_s <= end_s:
            computed[tenant] += turn.prompt_tokens - (turn.cached_tokens or 0)
        if turn.first_token_s is not None and WARM_UP_S <= turn.sent_s <= end_s:
            ttft_s[tenant].append(turn.first_token_s - turn.sent_s)
    total = sum(computed.values())
    modest = [s for tenant in range(greedy) for s in ttft_s[tenant]] or ttft_s[0]
    all_s = [s for each in ttft_s.values() for s in each]
    return {
        "num_prompts": num_prompts,
        "first_share": computed[0] / total,
        "greedy_share": computed[greedy] / total,
        "modest_ttft_p99_s": statistics.quantiles(modest, n=100)[98],
        "ttft_mean_s": statistics.fmean(all_s),
        "ttft_p99_s": statistics.quantiles(all_s, n=100)[98],
        "makespan_s": max(t.last_token_s or 0.0 for t in turns),
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Medians over the seeds, the lowest and highest in brackets."""
    names = (
        *("first_share", "greedy_share", "modest_ttft_p99_s"),
        *("ttft_mean_s", "ttft_p99_s", "makespan_s"),
    )
    heads = (
        *("share of the first", "of the greedy", "TTFT p99 of the modest, s"),
        *("TTFT mean of all, s", "p99 of all, s", "makespan, s"),
    )
    lines = ["| tenants | fairness | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * 6]
    for case in CASES:
        for mode in MODES:
            chosen = [run for run in runs if (run["case"], run["mode"]) == (case, mode)]
            cells = [_cell([run[name] for run in chosen]) for name in names]
            lines.append(f"| {case} | {mode} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    digits = 2 if max(values) < 10 else 1
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--prompts", type=int, default=8, help="of a worker; three times of a modest one"
    )
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    options.output.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for name, case in CASES.items():
        for seed in range(options.seeds):
            for mode in MODES:
                found = run(case, mode, seed, options.prompts)
                runs.append({"case": name, "mode": mode, "seed": seed} | found)
                print(json.dumps(runs[-1]), flush=True)
    (options.output / "fairness.md").write_text(table(runs))
    arguments = {"seeds": options.seeds, "prompts": options.prompts}
    manifest = run_manifest(arguments=arguments, runs=(), profile=PROFILE)
    manifest["seeds"] = list(range(options.seeds))
    document = {"schema": "holdfast.fairness/1", "manifest": manifest, "runs": runs}
    (options.output / "fairness.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
