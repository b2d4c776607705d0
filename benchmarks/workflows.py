"""Simulates multi-agent workflows under policies that know, learn or ignore their order.

python benchmarks/workflows.py [--only NAME,...] [--again NAME ...] [--seeds N] [--traces DIR]
    [--output DIR]

The workflows are generated (docs/generator.md), several sessions at once until all have ended, on a
cache that holds a part of what they use; `chatdev` and `coding-agents` are recorded and run where
DIR has them. Host memory for nothing, and for twice the cache. `kvflow` is told the order of calls,
and so are the policies with `*`; `cachesage` and Holdfast learn it. The bound is the best rule at
each seed, by mean TTFT, those that know nothing of the future included. Runs that
OUTPUT/workflows.json has are not made again, unless --again names their row and they are of another
commit.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
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
from simulated_table import code_commit

STOCK, BOUND, CEILING = "vllm-default", "clairvoyant*", "all-kept*"
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
    Variant(
        "holdfast, warm-ups",
        "holdfast",
        agent_ids=True,
        settings={"warm_up_share": 0.5, "warm_up": "all"},
    ),
    Variant("working-set", "working-set", agent_ids=True),
    Variant(BOUND, "clairvoyant", agent_ids=True),
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
    """One run.

    Attributes:
        variant: Name of the variant.
        has_tier: Whether there was host memory for twice the cache.
        seed: The seed.
        commit: The code that ran.
        num_calls: Calls answered.
        hit_ratio: Share of prompt tokens found in a cache.
        ttft_s: Mean time to first token (s).
        ttft_p99_s: Its 99th percentile (s).
        makespan_s: Time from the first call to the last answer (s).
    """

    variant: str
    has_tier: bool
    seed: int
    commit: str
    num_calls: int
    hit_ratio: float
    ttft_s: float
    ttft_p99_s: float
    makespan_s: float

    @property
    def calls_per_s(self) -> float:
        """Calls answered a second."""
        return self.num_calls / self.makespan_s


class Done(msgspec.Struct):
    """The cases of a set-up."""

    name: str
    title: str
    manifest: dict[str, object]
    cases: list[Case]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", help="set-ups, comma-separated", default="")
    parser.add_argument("--again", help="rows to run again", nargs="*", default=())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--traces", type=Path, help="folder with chatdev")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    only, again = set(filter(None, options.only.split(","))), set(options.again)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "workflows"
    path = stem.with_suffix(".json")
    known = msgspec.json.decode(path.read_bytes(), type=list[Done]) if path.exists() else []
    done = {each.name: each for each in known}

    def save() -> None:
        found = [done[setup.name] for setup in SETUPS if setup.name in done]
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        text = "\n".join(line for each in found if each.cases for line in _table(each))
        stem.with_suffix(".md").write_text(text)

    for setup in SETUPS:
        if (not only or setup.name in only) and (setup.source in WORKFLOWS or options.traces):
            old = done.setdefault(setup.name, Done(setup.name, setup.title, {}, []))
            _complete(old, setup, options.seeds, options.traces, again, save)
    print(stem.with_suffix(".md").read_text())


def _complete(
    done: Done,
    setup: Setup,
    num_seeds: int,
    traces: Path | None,
    again: set[str],
    save: Callable[[], None],
) -> None:
    """Run what is missing of a set-up, and save after each seed. Mutates `done`."""
    commit = code_commit()
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(num_seeds):
            missing = list(_missing(done, seed, again, commit))
            if not missing:
                continue
            path = _sessions_of(setup, seed, traces, Path(directory))
            workload = Workload(path, SessionSelection(num_sessions=setup.num_sessions))
            digest = {f"sessions-{seed}": sessions_digest(workload.sessions(seed).sessions)}
            runs = []
            for variant, has_tier in missing:
                run = _simulate(setup, variant, seed, workload, has_tier=has_tier)
                done.cases = [c for c in done.cases if _key(c) != (variant.name, has_tier, seed)]
                done.cases.append(_case(run, variant, commit, has_tier=has_tier))
                runs.append(run)
                print(setup.name, seed, has_tier, variant.name, flush=True)
            manifest = run_manifest(
                arguments=msgspec.to_builtins(setup), runs=runs, profile=setup.profile
            )
            old: dict[str, str] = msgspec.convert(done.manifest.get("digests", {}), dict[str, str])
            if old.get(f"sessions-{seed}", digest[f"sessions-{seed}"]) not in digest.values():
                raise SystemExit(f"{setup.name}: sessions of seed {seed} are not those of OUTPUT")
            done.manifest = manifest | {"digests": old | digest, "seeds": list(range(num_seeds))}
            done.cases.sort(key=_order)
            done.manifest["commits"] = sorted({case.commit for case in done.cases})
            save()


def _missing(done: Done, seed: int, again: set[str], commit: str) -> Iterator[tuple[Variant, bool]]:
    """Variants that have no case of a seed, or an old one that is to be made again."""
    cases = {_key(case): case for case in done.cases}
    for has_tier in BOTH:
        for variant in VARIANTS:
            case = cases.get((variant.name, has_tier, seed))
            is_old = case is not None and case.commit != commit and variant.name in again
            if has_tier in variant.tiers and (case is None or is_old):
                yield variant, has_tier


def _key(case: Case) -> tuple[str, bool, int]:
    return case.variant, case.has_tier, case.seed


def _order(case: Case) -> tuple[int, bool, int]:
    names = [variant.name for variant in VARIANTS]
    return case.seed, case.has_tier, names.index(case.variant)


def _case(run: RunResult, variant: Variant, commit: str, *, has_tier: bool) -> Case:
    assert run.ttft_s is not None and run.makespan_s is not None
    return Case(
        variant=variant.name,
        has_tier=has_tier,
        seed=run.seed,
        commit=commit,
        num_calls=run.num_turns,
        hit_ratio=run.token_hit_ratio or 0.0,
        ttft_s=run.ttft_s.mean,
        ttft_p99_s=run.ttft_s.p99,
        makespan_s=run.makespan_s,
    )


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
        "| against stock | TTFT mean / bound |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for has_tier in (False, True):
        stock = _cases(done, STOCK, has_tier=has_tier)
        bound = _best_rules(done, has_tier=has_tier)
        for variant in VARIANTS:
            own = _cases(done, variant.name, has_tier=has_tier)
            if own and variant.name == BOUND:
                own = bound
            if own and len(own) == len(stock):  # a new row is whole after the last seed
                cells = _cells(own, stock, _cases(done, CEILING, has_tier=False))
                tier = "twice the cache" if has_tier else "none"
                times = [a.ttft_s / b.ttft_s for a, b in zip(own, bound, strict=True)]
                distance = "bound" if own is bound else f"{median(times):.2f}x"
                yield "| " + " | ".join((tier, variant.name, *cells, distance)) + " |"
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


def _best_rules(done: Done, *, has_tier: bool) -> list[Case]:
    """The case with the shortest mean TTFT at each seed; an infinite cache is no rule."""
    best: dict[int, Case] = {}
    for case in done.cases:
        if case.has_tier != has_tier or case.variant == CEILING:
            continue
        if case.seed not in best or case.ttft_s < best[case.seed].ttft_s:
            best[case.seed] = case
    return [best[seed] for seed in sorted(best)]


def _cases(done: Done, variant: str, *, has_tier: bool) -> list[Case]:
    """The cases of a variant by seed."""
    found = [case for case in done.cases if (case.variant, case.has_tier) == (variant, has_tier)]
    return sorted(found, key=lambda case: case.seed)


if __name__ == "__main__":
    main()
