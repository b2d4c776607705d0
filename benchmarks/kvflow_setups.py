"""Simulates KVFlow's two set-ups: workflows of ten agents in a fixed order.

python benchmarks/kvflow_setups.py [--only NAME,...] [--seeds N] [--output DIR]

Source: arXiv 2507.07400. Every agent has a prefix of its own that is the same in every round; what
follows it is new each time. A workflow sends one request after the other, without pauses. Each run
is simulated twice, with one round and with all of them: the difference is what the rounds after the
first took, in caches that the first has warmed. Host memory for nothing, for half of the agents and
for all. The bound is the best rule at each seed, those without knowledge of the future included.
Lengths and order are fixed, so only the loads of many workflows have something to draw: when each
begins, by seed. A set-up whose results are under DIR/parts is not run again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from msgspec import structs

from holdfast.core.results import RunResult
from holdfast.report.manifest import run_manifest
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.traces.record import Session, Turn
from holdfast.traces.selection import SessionSelection
from holdfast.traces.writers.canonical import write_canonical
from holdfast.vllm.simulator.run import simulate

BLOCK_TOKENS = 16
NUM_AGENTS = 10
ROUNDS_AFTER_THE_FIRST = 10
STOCK, BOUND, CEILING = "vllm-default", "clairvoyant", "all-kept"
POLICIES = {
    "none": ("stateless", STOCK, "kvflow", "holdfast", BOUND, CEILING),
    "half": (STOCK, "infercept", "kvflow", "holdfast", BOUND),
    "all": (STOCK, "infercept", "kvflow", "holdfast", BOUND),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """One load.

    Attributes:
        name: Name in file names.
        profile: Cost profile of the engine.
        fixed_tokens: An agent's prefix.
        new_tokens: What follows it, new each time.
        output_tokens: The answer.
        num_workflows: Workflows at once, each with agents of its own.
        link_bytes_per_s: The link between cache and host; None for the profile's own.
        num_rounds: Rounds after the first.
        num_seeds: Draws of when workflows begin.
    """

    name: str
    profile: str
    fixed_tokens: int
    new_tokens: int
    output_tokens: int
    num_workflows: int = 1
    link_bytes_per_s: float | None = None
    num_rounds: int = ROUNDS_AFTER_THE_FIRST
    num_seeds: int = 1

    @property
    def call_tokens(self) -> int:
        """Tokens that one call leaves in the cache (count)."""
        return self.fixed_tokens + self.new_tokens + self.output_tokens

    @property
    def costs(self) -> CostProfile:
        """The profile, with the set-up's link."""
        profile = load_profile(self.profile)
        link_bytes_per_s = self.link_bytes_per_s or profile.host_link_bytes_per_s
        return msgspec.structs.replace(profile, host_link_bytes_per_s=link_bytes_per_s)

    def host_tokens(self, tier: str) -> int:
        """Size of a tier: the last calls of so many agents, and a quarter more (tokens)."""
        share = {"none": 0.0, "half": 0.5, "all": 1.25}[tier]
        return round(share * NUM_AGENTS * self.num_workflows * self.call_tokens)


_A10G = Setup("", "a10g-llama3.1-8b", 8192, 32, 32)
_SLOW = replace(_A10G, link_bytes_per_s=2e9)
_H100 = Setup("", "h100-qwen2.5-32b", 512, 256, 256, num_rounds=3, num_seeds=3)
SETUPS = (
    replace(_A10G, name="a10g-8192"),
    replace(_A10G, name="a10g-4096", fixed_tokens=4096),
    replace(_SLOW, name="a10g-8192-2GBs"),
    replace(_SLOW, name="a10g-4096-2GBs", fixed_tokens=4096),
    replace(_SLOW, name="a10g-8192-2GBs-40-rounds", num_rounds=40),
    *(
        replace(_H100, name=f"h100-{fixed}-x{number}", fixed_tokens=fixed, num_workflows=number)
        for fixed in (512, 1024)
        for number in (1, 4, 16, 64)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", help="set-ups, comma-separated", default="")
    parser.add_argument("--seeds", type=int, default=3, help="at most so many")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    parts = options.output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    done = [
        _read_or_run(
            replace(setup, num_seeds=min(setup.num_seeds, options.seeds)),
            parts / f"kvflow-{setup.name}.json",
        )
        for setup in SETUPS
        if not only or setup.name in only
    ]
    stem = options.output / "kvflow_setups"
    stem.with_suffix(".json").write_bytes(msgspec.json.encode(done) + b"\n")
    text = "\n".join(line for each in done for line in _table(each)) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(text)


class Case(msgspec.Struct, frozen=True):
    """One policy on one tier and seed: its first round by itself, and all rounds."""

    tier: str
    policy: str
    seed: int
    first: RunResult
    every: RunResult

    @property
    def turn_s(self) -> float:
        """Mean latency of a turn after the first round (s)."""
        return (_llm_s(self.every) - _llm_s(self.first)) / (
            self.every.num_turns - self.first.num_turns
        )

    @property
    def hit_ratio(self) -> float:
        """Share of the prompts' tokens after the first round that a cache held."""
        num_hit = _hit_tokens(self.every) - _hit_tokens(self.first)
        return num_hit / (self.every.prompt_tokens - self.first.prompt_tokens)

    @property
    def loaded_tokens(self) -> int:
        """Tokens copied from the host after the first round (count)."""
        return (self.every.loaded_tokens or 0) - (self.first.loaded_tokens or 0)


class Done(msgspec.Struct, frozen=True):
    """All cases of a set-up."""

    name: str
    manifest: dict[str, object]
    cases: list[Case]


def _read_or_run(setup: Setup, path: Path) -> Done:
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=Done)
    cases = []
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(setup.num_seeds):
            traces = [
                _write(setup, rounds, seed, Path(directory)) for rounds in (1, 1 + setup.num_rounds)
            ]
            for tier, policies in POLICIES.items():
                for policy in policies:
                    runs = [_simulate(setup, tier, policy, seed, trace) for trace in traces]
                    case = Case(tier, policy, seed, *runs)
                    cases.append(case)
                    print(setup.name, tier, policy, seed, f"{case.turn_s:.3f} s", flush=True)
    manifest = run_manifest(
        arguments=msgspec.to_builtins(setup),
        runs=[case.every for case in cases],
        profile=setup.profile,
    )
    done = Done(setup.name, manifest, cases)
    path.write_bytes(msgspec.json.encode(done))
    return done


def _write(setup: Setup, num_rounds: int, seed: int, directory: Path) -> Path:
    path = directory / f"{num_rounds}-{seed}.jsonl"
    with path.open("wb") as file:
        write_canonical(_sessions(setup, num_rounds, seed), file)
    return path


def _simulate(setup: Setup, tier: str, policy: str, seed: int, trace: Path) -> RunResult:
    costs = setup.costs
    return simulate(
        RunPlan(
            policy=policy,
            seed=seed,
            workload=Workload(trace, SessionSelection()),
            options=SimulationOptions(concurrency=None),
            profile=costs,
            kv_tokens=costs.kv_tokens,
            block_tokens=BLOCK_TOKENS,
            host_tokens=setup.host_tokens(tier),
        )
    )


def _sessions(setup: Setup, num_rounds: int, seed: int) -> Iterator[Session]:
    """A session a workflow, whose turns are its agents' calls in order."""
    rng = random.Random(seed)
    round_s = NUM_AGENTS * load_profile(setup.profile).step_base_s * setup.output_tokens
    num_fixed = setup.fixed_tokens // BLOCK_TOKENS
    num_new = setup.new_tokens // BLOCK_TOKENS
    next_id = setup.num_workflows * NUM_AGENTS * num_fixed
    for number in range(setup.num_workflows):
        turns = []
        for call in range(num_rounds * NUM_AGENTS):
            first = (number * NUM_AGENTS + call % NUM_AGENTS) * num_fixed
            fixed = range(first, first + num_fixed)
            turns.append(
                Turn(
                    gap_s=0.0,
                    prompt_tokens=setup.fixed_tokens + setup.new_tokens,
                    output_tokens=setup.output_tokens,
                    block_ids=(*fixed, *range(next_id, next_id + num_new)),
                )
            )
            next_id += num_new
        start_s = rng.uniform(0.0, round_s) if setup.num_workflows > 1 else 0.0
        yield Session(f"workflow-{number}", BLOCK_TOKENS, tuple(turns), "benchmark", start_s)


def _llm_s(run: RunResult) -> float:
    assert run.request_latency_s is not None
    return run.request_latency_s.mean * run.num_turns


def _hit_tokens(run: RunResult) -> float:
    return (run.token_hit_ratio or 0.0) * run.prompt_tokens


def _table(done: Done) -> Iterator[str]:
    """Medians over seeds; ratios paired by seed."""
    cases: dict[tuple[str, str], list[Case]] = {}
    for case in _with_best_rules(done.cases):
        cases.setdefault((case.tier, case.policy), []).append(case)
    yield f"**{done.name}**"
    yield ""
    yield (
        "| host tier | policy | mean turn, s | hit ratio | loaded tokens "
        "| times shorter than stock with a tier for all | than stock with this tier "
        "| times as long as the bound's |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for (tier, policy), own in cases.items():
        gains = [_gain(own, bases) for bases in (cases["all", STOCK], cases[tier, STOCK])]
        cells = [
            *(tier, policy, f"{_middle([o.turn_s for o in own]):.2f}"),
            f"{_middle([o.hit_ratio for o in own]):.3f}",
            f"{_middle([o.loaded_tokens for o in own]):,.0f}",
            *(f"{gain:.2f}" for gain in gains),
            f"{1 / _gain(own, cases[tier, BOUND]):.2f}",
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _with_best_rules(cases: list[Case]) -> Iterator[Case]:
    """The cases, the bound's replaced by the best rule's of its tier and seed."""
    best: dict[tuple[str, int], Case] = {}
    for case in cases:
        known = best.get((case.tier, case.seed))
        if case.policy != CEILING and (known is None or case.turn_s < known.turn_s):
            best[case.tier, case.seed] = case
    for case in cases:
        is_bound = case.policy == BOUND
        yield structs.replace(best[case.tier, case.seed], policy=BOUND) if is_bound else case


def _gain(cases: list[Case], bases: list[Case]) -> float:
    """How many times shorter a turn is than with others."""
    return _middle([base.turn_s / case.turn_s for base, case in zip(bases, cases, strict=True)])


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
