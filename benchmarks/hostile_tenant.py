"""Measures what a lying tenant takes from nine others, simulated.

python benchmarks/hostile_tenant.py [--seeds N] [--sessions N] [--settings NAME=VALUE,...]
    [--output DIR]

Ten tenants share one H100 with Llama-3.1-8B, two coding agents of each at once, four times what the
KV cache holds. The tenth also sends a stream of prompts that never return.

stock: vLLM's own scheduler.
silent: Holdfast; the tenth tenant sends no hints.
hostile: Holdfast; with the same requests the tenth claims the top priority, a week of retention, an
immediate return after a tool that is always fast, and a prefetch, and tells the engine to evict
other tenants' sessions, whose ids it also takes for its own.
all retain: Holdfast; every tenant asks for an hour of retention with every request.

Figures are of the first nine tenants' turns, relative to `silent` of the same seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

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
NUM_TENANTS = 10
LIVE_SESSIONS = 2 * NUM_TENANTS
LAST = NUM_TENANTS - 1
CASES = ("stock", "silent", "hostile", "all retain")

_contents = count()


def coding_agent(source: random.Random, name: str) -> Session:
    """A session of 25 turns that grows by tool results."""
    prompt: list[int] = []
    turns = []
    for index in range(25):
        num_tokens = 20_000 if not index else source.randint(500, 4_000)
        prompt += [next(_contents) for _ in range(num_tokens // BLOCK_TOKENS)]
        gap_s = source.lognormvariate(0.7, 1.2) if index else 0.0
        turns.append(_turn(prompt, gap_s, "tool", "Bash"))
    return Session(name, BLOCK_TOKENS, tuple(turns), "generated")


def one_shot(source: random.Random, name: str) -> Session:
    """A long prompt that never returns."""
    prompt = [next(_contents) for _ in range(source.randint(2_000, 40_000) // BLOCK_TOKENS)]
    return Session(name, BLOCK_TOKENS, (_turn(prompt, 0.0, "human", None),), "generated")


def _turn(prompt: list[int], gap_s: float, ended_by: Any, tool: str | None) -> Turn:
    return Turn(
        gap_s, len(prompt) * BLOCK_TOKENS, 200, tuple(prompt), ended_by=ended_by, tool_name=tool
    )


def sessions_of(seed: int, num_sessions: int) -> tuple[list[Session], list[int]]:
    """The sessions in the order in which they start, and the tenant of each."""
    source = random.Random(f"hostile/{seed}")
    sessions: list[Session] = []
    tenants: list[int] = []
    for round_ in range(num_sessions):
        for tenant in range(NUM_TENANTS):
            sessions.append(coding_agent(source, f"agent-{tenant}-{round_}"))
            tenants.append(tenant)
            if tenant % 2:
                sessions.append(one_shot(source, f"one-shot-{tenant}-{round_}"))
                tenants.append(LAST)
    return sessions, tenants


class TenantEngine(SimulatedEngine):
    """A simulated engine whose requests have tenants, and hints as a case wants them."""

    tenant_of: Callable[[SimRequest], int]
    hints_of: Callable[[SimRequest, int], dict[str, Any]]

    def submit(self, request: SimRequest) -> None:
        """Take in a request of a tenant."""
        tenant = self.tenant_of(request)
        hints = self.hints_of(request, tenant)
        self._is_settled = False
        made = self.request(
            request.request_id,
            list(request.block_keys),
            request.prompt_tokens,
            request.output_tokens,
            extra_args={**request.hints, **hints},
            session_id=hints.get("session_id", request.session_id),
        )
        made.cache_salt = f"tenant-{tenant}"
        self.add(made)


def hostile_hints(request: SimRequest, victim: str) -> dict[str, Any]:
    """Everything that a client may claim, and what it may not."""
    actions = [
        {"action_type": action, "payload": {"session_id": victim}}
        for action in ("Evict", "Demote", "Prefetch", "Pin")
    ]
    return {
        "holdfast_retain_s": 1e9,
        "holdfast_priority": -(10**12),
        "holdfast_expected_gap_s": 0.5,
        "holdfast_turn_end": "tool:Read",
        "holdfast_prefetch": True,
        "session_id": victim if int(request.request_id.partition("-")[0]) % 3 else None,
        "kv_transfer_params": {"kv_hints": {"protocol_version": "0.1", "actions": actions}},
    }


def run(case: str, seed: int, num_sessions: int, settings: dict[str, object]) -> dict[str, Any]:
    """Simulate one case; figures of the first nine tenants."""
    sessions, tenants = sessions_of(seed, num_sessions)
    names = [session.session_id for session in sessions]
    victims = [name for name, tenant in zip(names, tenants, strict=True) if tenant != LAST]
    source = random.Random(seed)

    def hints_of(request: SimRequest, tenant: int) -> dict[str, Any]:
        if case == "hostile" and tenant == LAST:
            return hostile_hints(request, source.choice(victims))
        return {"holdfast_retain_s": 3600.0} if case == "all retain" else {}

    profile = load_profile(PROFILE)
    clock = VirtualClock()
    policy = "vllm-default" if case == "stock" else "holdfast"
    num_blocks = profile.kv_tokens // profile.block_size_tokens + 1
    engine = TenantEngine(
        policy,
        EngineShape(
            num_blocks=num_blocks,
            block_size_tokens=profile.block_size_tokens,
            max_num_seqs=profile.max_num_seqs,
            max_num_batched_tokens=profile.max_num_batched_tokens,
            max_model_len_tokens=400_000,
        ),
        lambda: clock.now_s,
        config=load_config(None, {}, settings),
    )
    engine.tenant_of = lambda request: tenants[int(request.request_id.partition("-")[0])]
    engine.hints_of = hints_of
    replays = Replays(sessions, 1.0, profile.block_size_tokens)
    options = SimulationOptions(concurrency=LIVE_SESSIONS, session_ids=True)
    fleet = Fleet([engine], profile, clock)
    records = Simulation(fleet, replays, options, seed=seed).run()
    tenant_of = dict(zip(names, tenants, strict=True))
    own = [turn for turn in records.turns if tenant_of[turn.session_id] != LAST]
    return figures(own) | {
        "hints": {k: v for k, v in engine.scheduler.counted.items() if "hints/" in k},
        "last_tenant": figures([t for t in records.turns if tenant_of[t.session_id] == LAST]),
    }


def figures(turns: list[TurnRecord]) -> dict[str, Any]:
    """First tokens and whole answers of turns (s)."""
    ttft_s = [t.first_token_s - t.sent_s for t in turns if t.first_token_s is not None]
    latency_s = [t.last_token_s - t.sent_s for t in turns if t.last_token_s is not None]
    cached = sum(t.cached_tokens or 0 for t in turns) / sum(t.prompt_tokens for t in turns)
    return {
        "num_turns": len(turns),
        "ttft_mean_s": statistics.fmean(ttft_s),
        "ttft_p99_s": statistics.quantiles(ttft_s, n=100)[98],
        "latency_mean_s": statistics.fmean(latency_s),
        "latency_p99_s": statistics.quantiles(latency_s, n=100)[98],
        "hit_ratio": cached,
    }


_SHOWN = ("ttft_mean_s", "ttft_p99_s", "latency_mean_s", "latency_p99_s")


def table(runs: list[dict[str, Any]]) -> str:
    """Medians over the seeds, and the ratio to `silent` of the same seed."""
    lines = ["| case | " + " | ".join(n.removesuffix("_s") for n in _SHOWN) + " | hit ratio |"]
    lines.append("|---|" + "---|" * (len(_SHOWN) + 1))
    base = {run["seed"]: run for run in runs if run["case"] == "silent"}
    for case in CASES:
        chosen = [run for run in runs if run["case"] == case]
        cells = []
        for name in _SHOWN:
            value_s = statistics.median(run[name] for run in chosen)
            ratio = statistics.median(run[name] / base[run["seed"]][name] for run in chosen)
            cells.append(f"{value_s:.2f} s ({ratio:.2f}x)")
        hits = statistics.median(run["hit_ratio"] for run in chosen)
        lines.append(f"| {case} | " + " | ".join(cells) + f" | {hits:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=6, help="agents of each tenant")
    parser.add_argument("--settings", default="", help="Holdfast's settings")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    pairs = [pair.partition("=") for pair in options.settings.split(",") if pair]
    settings: dict[str, object] = {name: float(value) for name, _, value in pairs}
    runs = []
    for seed in range(options.seeds):
        for case in options.cases.split(","):
            found = run(case, seed, options.sessions, settings)
            runs.append({"case": case, "seed": seed, **found})
            print(case, seed, {k: v for k, v in found.items() if k != "last_tenant"}, flush=True)
    arguments = {"seeds": options.seeds, "sessions": options.sessions, "settings": options.settings}
    manifest = run_manifest(arguments=arguments, runs=(), profile=PROFILE)
    manifest["seeds"] = list(range(options.seeds))
    document = {"schema": "holdfast.hostile_tenant/1", "manifest": manifest, "runs": runs}
    (options.output / "hostile_tenant.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "hostile_tenant.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
