"""Simulates multi-agent workflows under policies that know, learn or ignore their order.

python benchmarks/workflows.py [--only NAME,...] [--seeds N] [--traces DIR] [--output DIR]

The workflows are generated (docs/generator.md), several sessions at once until all have ended, on a
cache that holds a part of what they use; `chatdev` and `coding-agents` are recorded and run where
DIR has them. Host memory for nothing, and for twice the cache. `kvflow` is told the order of calls,
and so are the policies with `*`; `cachesage` and Holdfast learn it. A set-up whose results are
under OUTPUT/parts is not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec

from holdfast.core.results import RunResult
from holdfast.report.manifest import run_manifest
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile_file import load_profile
from holdfast.traces.digest import sessions_digest
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection
from holdfast.traces.writers.canonical import write_canonical
from holdfast.vllm.simulator.run import simulate
from holdfast.workload.workflows.kinds import WORKFLOWS
from holdfast.workload.workflows.sessions import iterate_workflow

STOCK, CEILING = "vllm-default", "all-kept*"
H100 = "h100-llama3.1-8b"


@dataclass(frozen=True, slots=True)
class Variant:
    """A policy, what its clients say, and its settings.

    Attributes:
        name: Name in tables.
        policy: The policy.
        agent_ids: Whether requests name their agents.
        graphs: Whether workflows declare their graphs.
        settings: Holdfast's settings.
        tiers: Whether it runs without a host tier, and with one.
    """

    name: str
    policy: str
    agent_ids: bool = False
    graphs: bool = False
    settings: dict[str, object] = field(default_factory=dict)
    tiers: tuple[bool, ...] = (False,)


BOTH = (False, True)
VARIANTS = (
    Variant("stateless", "stateless"),
    Variant(STOCK, STOCK, tiers=BOTH),
    Variant("kvflow*", "kvflow", tiers=BOTH),
    Variant("kvflow, graphs", "kvflow", agent_ids=True, graphs=True),
    Variant("cachesage", "cachesage", agent_ids=True, tiers=BOTH),
    Variant("holdfast, no ids", "holdfast"),
    Variant("holdfast", "holdfast", agent_ids=True, tiers=BOTH),
    Variant("holdfast, graphs", "holdfast", agent_ids=True, graphs=True),
    Variant(
        "holdfast, no predictions", "holdfast", agent_ids=True, settings={"predictions": "never"}
    ),
    Variant(
        "holdfast, no prefetch",
        "holdfast",
        agent_ids=True,
        settings={"prefetch": False},
        tiers=(True,),
    ),
    Variant("working-set", "working-set", agent_ids=True),
    Variant("clairvoyant*", "clairvoyant", agent_ids=True),
    Variant(CEILING, "all-kept"),
)


@dataclass(frozen=True, slots=True)
class Setup:
    """One load.

    Attributes:
        name: Name in file names.
        source: Name of a generated workflow, or of a folder of traces.
        concurrency: Sessions at once.
        kv_blocks: Size of the cache.
        num_calls: Least number of calls, of generated sessions.
        num_sessions: Sessions, of recorded ones.
        profile: Cost profile of the engine.
        block_tokens: Tokens in a block.
    """

    name: str
    source: str
    concurrency: int
    kv_blocks: int
    num_calls: int = 240
    profile: str = H100
    block_tokens: int = 16
    num_sessions: int | None = None

    @property
    def title(self) -> str:
        """What is run."""
        num_tokens = self.kv_blocks * self.block_tokens
        return f"{self.source}, {self.concurrency} at once, {num_tokens:,} KV tokens"


SETUPS = (
    Setup("kvflow-single", "kvflow-single", 1, 1200, 120, "a10g-llama3.1-8b"),
    Setup("peer-1", "peer", 1, 300),
    Setup("supervisor-4", "supervisor", 4, 900),
    Setup("random-4", "random", 4, 900),
    Setup("selector-4", "selector", 4, 900),
    Setup("debate-4", "debate", 4, 900),
    Setup("kvflow-concurrent", "kvflow-concurrent", 4, 1140, 160, "h100-qwen2.5-32b"),
    Setup("kvflow-concurrent-16", "kvflow-concurrent", 16, 1140, 640, "h100-qwen2.5-32b"),
    Setup("peer-4", "peer", 4, 700),
    Setup("chatdev", "chatdev", 4, 600, num_sessions=6),
)


class Case(msgspec.Struct, frozen=True):
    """One run."""

    variant: str
    has_tier: bool
    run: RunResult

    @property
    def hit_ratio(self) -> float:
        """Share of prompt tokens found in a cache."""
        return self.run.token_hit_ratio or 0.0

    @property
    def ttft_s(self) -> float:
        """Mean time to first token (s)."""
        assert self.run.ttft_s is not None
        return self.run.ttft_s.mean

    @property
    def ttft_p99_s(self) -> float:
        """99th percentile of the time to first token (s)."""
        assert self.run.ttft_s is not None
        return self.run.ttft_s.p99

    @property
    def calls_per_s(self) -> float:
        """Calls answered a second."""
        assert self.run.makespan_s is not None
        return self.run.num_turns / self.run.makespan_s


class Done(msgspec.Struct, frozen=True):
    """All cases of a set-up."""

    name: str
    title: str
    manifest: dict[str, object]
    cases: list[Case]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help="set-ups, comma-separated", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, help="folder with chatdev")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    parts = options.output / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    chosen = [
        setup
        for setup in SETUPS
        if (not only or setup.name in only) and (setup.source in WORKFLOWS or options.traces)
    ]
    done = []
    for setup in chosen:
        path = parts / f"workflows-{setup.name}.json"
        if not path.exists():
            path.write_bytes(msgspec.json.encode(_run(setup, options.seeds, options.traces)))
        done.append(msgspec.json.decode(path.read_bytes(), type=Done))
    stem = options.output / "workflows"
    content = msgspec.json.format(msgspec.json.encode(done), indent=1)
    stem.with_suffix(".json").write_bytes(content + b"\n")
    text = "\n".join(line for each in done for line in _table(each))
    stem.with_suffix(".md").write_text(text)
    print(text)


def _run(setup: Setup, num_seeds: int, traces: Path | None) -> Done:
    cases = []
    digests = {}
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(num_seeds):
            path = _sessions_of(setup, seed, traces, Path(directory))
            selection = SessionSelection(num_sessions=setup.num_sessions)
            workload = Workload(path, selection)
            digests[f"sessions-{seed}"] = sessions_digest(workload.sessions(seed).sessions)
            for has_tier in (False, True):
                for variant in VARIANTS:
                    if has_tier in variant.tiers:
                        run = _simulate(setup, variant, seed, workload, has_tier=has_tier)
                        cases.append(Case(variant.name, has_tier, run))
                        print(setup.name, seed, has_tier, variant.name, flush=True)
    manifest = run_manifest(
        arguments=msgspec.to_builtins(setup),
        runs=[case.run for case in cases],
        digests=digests,
        profile=setup.profile,
    )
    return Done(setup.name, setup.title, manifest, cases)


def _sessions_of(setup: Setup, seed: int, traces: Path | None, directory: Path) -> Path:
    """The sessions of a seed: recorded ones as they are, generated ones in a new file."""
    if setup.source not in WORKFLOWS:
        assert traces is not None
        return traces / setup.source
    path = directory / f"{seed}.jsonl"
    with path.open("wb") as file:
        write_canonical(_generated(setup, seed), file)
    return path


def _generated(setup: Setup, seed: int) -> Iterator[Session]:
    num_calls = 0
    for session in iterate_workflow(WORKFLOWS[setup.source], seed, name=setup.source):
        yield session
        num_calls += len(session.turns)
        if num_calls >= setup.num_calls:
            return


def _simulate(
    setup: Setup, variant: Variant, seed: int, workload: Workload, *, has_tier: bool
) -> RunResult:
    kv_tokens = setup.kv_blocks * setup.block_tokens
    return simulate(
        RunPlan(
            policy=variant.policy,
            seed=seed,
            workload=workload,
            options=SimulationOptions(
                setup.concurrency, agent_ids=variant.agent_ids, graphs=variant.graphs
            ),
            profile=load_profile(setup.profile),
            kv_tokens=kv_tokens,
            block_tokens=setup.block_tokens,
            settings=variant.settings,
            host_tokens=2 * kv_tokens if has_tier else 0,
        )
    )


def _table(done: Done) -> Iterator[str]:
    """Medians over seeds; differences are paired by seed."""
    yield f"**{done.title}, seeds: {len(_cases(done, STOCK, has_tier=False))}**"
    yield ""
    yield (
        "| host tier | policy | hit ratio | points over stock | of what all-kept gains "
        "| TTFT mean (ms) | against stock | TTFT p99 (ms) | against stock | calls/s "
        "| against stock |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for has_tier in (False, True):
        stock = _cases(done, STOCK, has_tier=has_tier)
        for variant in VARIANTS:
            own = _cases(done, variant.name, has_tier=has_tier)
            if own:
                cells = _cells(own, stock, _cases(done, CEILING, has_tier=False))
                tier = "twice the cache" if has_tier else "none"
                yield "| " + " | ".join((tier, variant.name, *cells)) + " |"
    yield ""


def _cells(own: list[Case], stock: list[Case], ceiling: list[Case]) -> Iterator[str]:
    yield f"{median(case.hit_ratio for case in own):.3f}"
    gains = [a.hit_ratio - b.hit_ratio for a, b in zip(own, stock, strict=True)]
    yield f"{100 * median(gains):+.1f}"
    most = [a.hit_ratio - b.hit_ratio for a, b in zip(ceiling, stock, strict=True)]
    shares = [gain / best for gain, best in zip(gains, most, strict=True) if best > 0.0]
    yield f"{100 * median(shares):.0f} %" if shares else "-"
    for name, unit, digits in (("ttft_s", 1e3, 0), ("ttft_p99_s", 1e3, 0), ("calls_per_s", 1, 2)):
        values = [getattr(case, name) for case in own]
        yield f"{unit * median(values):.{digits}f}"
        ratios = [a / getattr(b, name) for a, b in zip(values, stock, strict=True)]
        yield f"{100 * (median(ratios) - 1):+.0f} %"


def _cases(done: Done, variant: str, *, has_tier: bool) -> list[Case]:
    return [case for case in done.cases if (case.variant, case.has_tier) == (variant, has_tier)]


if __name__ == "__main__":
    main()
