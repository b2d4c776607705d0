"""Compares generated sessions with the recorded ones that they are fitted to.

python benchmarks/generator_closeness.py [--traces PATH] [--seeds N] [--simulate] [--output DIR]

Study, fit, generate as many main agents. Lengths and gaps are compared as distributions: by the
Kolmogorov-Smirnov statistic (KS), and by Wasserstein's distance of the logarithms (W; of 1 + the
value, so that 0.1 is about 10 %). Dependences are compared as numbers.

Held out: fitted to one half of the recorded families, generated as many as the other half, compared
with that. The floor is how far that half is from the one fitted to, which has as many sessions and
so as much noise: a perfect generator would come as close.

With --simulate the same policies run on recorded and on generated sessions at the same load, and
Kendall's tau says whether they come out in the same order.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from holdfast.core.results import RunResult
from holdfast.report.document import read_document
from holdfast.report.manifest import run_manifest
from holdfast.traces.conversion import write_sessions
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import read_sessions
from holdfast.traces.order import families
from holdfast.traces.record import Session
from holdfast.workload.generator.families import iterate_families
from holdfast.workload.generator.fit import fitted
from holdfast.workload.study.mutations import MutationMeter
from holdfast.workload.study.prefixes import PrefixMeter
from holdfast.workload.study.profile_meter import ProfilesMeter
from holdfast.workload.study.steps import Stepper
from holdfast.workload.study.wait import wait_kind

POLICIES = ("vllm-default", "cachewise", "continuum", "thunderagent", "holdfast")
LOAD = (
    *("--profile", "h100-llama3.1-8b", "--concurrency", "10", "--sessions", "20"),
    *("--gap-cap-s", "120", "--max-model-len", "200000", "--jobs", "1"),
)
STAND_IN = "claude-code-tools"
NUM_SPLITS = 5
_FAR = 0.1

Family = tuple[Session, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path, help="Without: generated ones, told apart by seed.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--sim-seeds", default="2")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.traces is None:
        options.traces = options.output / f"{STAND_IN}.jsonl"
        holdfast(
            *("traces", "generate", "--like", STAND_IN, "--sessions", 60, "--seed", 1000),
            *("--output", options.traces),
        )
    name = options.traces.name.partition(".")[0]
    recorded = [tuple(family) for family in families(read_sessions(options.traces))]
    generated = [
        like(recorded, len(recorded), seed, f"{name}-like") for seed in range(options.seeds)
    ]
    tables = [distances(recorded, generated), dependences(recorded, generated)]
    results: dict[str, Any] = {}
    if options.simulate:
        path = options.output / f"{name}-generated.jsonl"
        write_sessions(chain.from_iterable(generated[0]), path, "holdfast", None)
        for source, traces in (("recorded", options.traces), ("generated", path)):
            results[source] = simulated(traces, f"{name}-{source}", options)
        tables.append(rankings(results["recorded"], results["generated"]))
    text = "\n".join(tables)
    print(text)
    stem = options.output / f"generator_closeness-{name}"
    stem.with_suffix(".md").write_text(text)
    manifest = run_manifest(
        arguments={key: _named(value) for key, value in vars(options).items()},
        runs=[run for runs in results.values() for run in runs],
        digests={
            "recorded": sessions_digest(chain.from_iterable(recorded)),
            "generated-0": sessions_digest(chain.from_iterable(generated[0])),
        },
        profile=LOAD[1] if options.simulate else None,
    )
    stem.with_suffix(".json").write_text(json.dumps({"manifest": manifest, "tables": tables}))


def holdfast(*arguments: object) -> None:
    """Run a command; its output is not shown."""
    words = [str(argument) for argument in arguments]
    print("$ holdfast", *words, flush=True)
    command = [sys.executable, "-m", "holdfast", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def like(chosen: Sequence[Family], num: int, seed: int, name: str) -> list[Family]:
    """Families generated with parameters fitted to these recorded ones."""
    stepper, meter = Stepper(), ProfilesMeter()
    for family in chosen:
        meter.add(tuple(stepper.follow(session) for session in family))
    return list(islice(iterate_families(fitted(meter.result(), name), seed, name=name), num))


def marginals(chosen: Iterable[Family]) -> dict[str, list[float]]:
    """The values of each kind."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for family in chosen:
        values["sub-agents"].append(len(family) - 1)
        for session in family:
            turns = session.turns
            prompts = [turn.prompt_tokens for turn in turns]
            values["turns"].append(len(turns))
            values["first prompt"].append(prompts[0])
            values["largest prompt"].append(max(prompts))
            values["prompt"] += prompts
            values["answer"] += [turn.output_tokens for turn in turns]
            values["answers of a session"].append(sum(turn.output_tokens for turn in turns))
            values["time away of a session"].append(sum(turn.gap_s for turn in turns))
            for before, turn in pairwise(turns):
                kind = "human" if wait_kind(before) == "human" else "other"
                values[f"gap, {kind}"].append(turn.gap_s)
                if turn.prompt_tokens > before.prompt_tokens:
                    values["growth"].append(turn.prompt_tokens - before.prompt_tokens)
    return dict(values)


def halves(recorded: Sequence[Family], seed: int) -> tuple[list[Family], list[Family]]:
    """Split the recorded families into random halves."""
    shuffled = list(recorded)
    random.Random(seed).shuffle(shuffled)
    return shuffled[::2], shuffled[1::2]


def distance(left: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """The Kolmogorov-Smirnov statistic, and Wasserstein's distance of the logarithms."""
    logs = np.log1p(np.asarray(left)), np.log1p(np.asarray(right))
    return float(stats.ks_2samp(left, right).statistic), float(stats.wasserstein_distance(*logs))


def distances(recorded: Sequence[Family], generated: Sequence[Sequence[Family]]) -> str:
    """A line for each kind of value; medians over seeds, and over splits."""
    real = marginals(recorded)
    made = [marginals(each) for each in generated]
    splits = [halves(recorded, seed) for seed in range(NUM_SPLITS)]
    held_out = [
        (marginals(like(fitted_to, len(other), seed, "half")), marginals(other))
        for seed, (fitted_to, other) in enumerate(splits)
    ]
    floors = [(marginals(fitted_to), marginals(other)) for fitted_to, other in splits]
    lines = [
        "| distribution | median | made | 90th pct. | made | KS | held out | floor | W | held out "
        "| floor |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, values in real.items():
        if not any(values):
            continue
        columns = [
            [distance(left.get(kind, [0.0]), right.get(kind, [0.0])) for left, right in pairs]
            for pairs in ([(real, each) for each in made], held_out, floors)
        ]
        cells = []
        for percent in (50, 90):
            others = statistics.median(float(np.percentile(each[kind], percent)) for each in made)
            cells += [f"{np.percentile(values, percent):,.4g}", f"{others:,.4g}"]
        for place in (0, 1):
            cells += [f"{statistics.median(d[place] for d in ds):.3f}" for ds in columns]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def dependence(chosen: Sequence[Family]) -> dict[str, float]:
    """Dependences between lengths, gaps and turns, as numbers."""
    found: dict[str, float] = {}
    sessions = [session for family in chosen for session in family]
    waits = [
        (
            wait_kind(before),
            turn.gap_s,
            before.output_tokens,
            turn.prompt_tokens - before.prompt_tokens,
        )
        for session in sessions
        for before, turn in pairwise(session.turns)
    ]
    neighbours = [
        (first.gap_s, second.gap_s)
        for session in sessions
        for first, second in pairwise(session.turns[1:])
    ]
    found["gaps, rank correlation with the next"] = _rank_correlation(neighbours)
    found["gaps, rank variance that the tool's kind explains"] = _explained(
        [kind for kind, *_ in waits], [gap_s for _, gap_s, *_ in waits]
    )
    pairs = [
        (f"{wait_kind(first)} {wait_kind(second)}", third.gap_s)
        for session in sessions
        for first, second, third in zip(
            session.turns, session.turns[1:], session.turns[2:], strict=False
        )
    ]
    found["the same, that and the kind before"] = _explained(*map(list, zip(*pairs, strict=True)))
    found["gaps, rank variance between sessions"] = _explained(
        [name for session in sessions for name in [session.session_id] * (len(session.turns) - 1)],
        [gap_s for _, gap_s, *_ in waits],
    )
    found["answer and growth, rank correlation"] = _rank_correlation(
        [(output, growth) for *_, output, growth in waits if growth > 0]
    )
    found["turns and largest prompt, rank correlation"] = _rank_correlation(
        [
            (len(session.turns), max(turn.prompt_tokens for turn in session.turns))
            for session in sessions
        ]
    )
    for kind, num in sorted(Counter(kind for kind, *_ in waits).items()):
        if num >= _FAR * len(waits) or kind == "human":
            gaps = [gap_s for each, gap_s, *_ in waits if each == kind]
            found[f"waits, share of {kind}"] = num / len(waits)
            found[f"gap s, 90th percentile of {kind}"] = float(np.percentile(gaps, 90))
    return found | _reuse(sessions)


def _reuse(sessions: Sequence[Session]) -> dict[str, float]:
    stepper, prefixes, mutations = Stepper(), PrefixMeter(), MutationMeter()
    for session in sessions:
        stepped = stepper.follow(session)
        prefixes.add(stepped)
        mutations.add(stepped)
    prefix, mutation = prefixes.result(), mutations.result()
    found = {
        "prompt tokens sent before by the session": prefix.own_tokens / prefix.prompt_tokens,
        "prompt tokens sent before by others": (prefix.family_tokens + prefix.foreign_tokens)
        / prefix.prompt_tokens,
        "head shared with another session, median tokens": prefix.head_tokens.median or 0.0,
    }
    for kind in ("tail", "return", "branch", "compaction"):
        share = mutation.num_by_kind.get(kind, 0) / mutation.num_turns
        found[f"prompts that are rewritten, {kind}"] = share
    found["prompt tokens computed again for it"] = mutation.recompute_tokens / prefix.prompt_tokens
    return found


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    return float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)


def _explained(groups: Sequence[str], values: Sequence[float]) -> float:
    """Share of the variance of ranks that lies between groups."""
    ranks = stats.rankdata(values)
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    means = np.bincount(places, weights=ranks) / np.bincount(places)
    return float(np.var(means[places]) / np.var(ranks))


def dependences(recorded: Sequence[Family], generated: Sequence[Sequence[Family]]) -> str:
    """A line for each number; medians over seeds, and the range of the recorded halves."""
    real = dependence(recorded)
    made = [dependence(each) for each in generated]
    parts = [dependence(half) for seed in range(2) for half in halves(recorded, seed)]
    lines = ["| number | recorded | its halves | generated |", "|---|---|---|---|"]
    for name, value in real.items():
        others = statistics.median(each.get(name, 0.0) for each in made)
        spread = [each.get(name, 0.0) for each in parts]
        cells = (f"{value:,.3g}", f"{min(spread):,.3g} to {max(spread):,.3g}", f"{others:,.3g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def simulated(traces: Path, source: str, options: argparse.Namespace) -> list[RunResult]:
    """Each policy's runs; existing results are not run again."""
    runs: list[RunResult] = []
    for policy in POLICIES:
        path = options.output / f"{source}-{policy}.json"
        if not path.exists():
            holdfast(
                *("simulate", "--traces", traces, *LOAD, "--seeds", options.sim_seeds),
                *("--policies", policy, "--json", path),
            )
        runs += read_document(path).runs
    return runs


def rankings(recorded: list[RunResult], generated: list[RunResult]) -> str:
    """LLM time a session and hit ratio by policy, and how far the orders agree."""
    lines = [
        "| policy | LLM time (s) | generated | gain | generated | hit ratio | generated |",
        "|---|---|---|---|---|---|---|",
    ]
    real_s, made_s = (_by_policy(runs, _llm_time_s) for runs in (recorded, generated))
    real_hits, made_hits = (_by_policy(runs, _hit_ratio) for runs in (recorded, generated))
    for policy in POLICIES:
        gains = [times[POLICIES[0]] / times[policy] for times in (real_s, made_s)]
        lines.append(
            f"| {policy} | {real_s[policy]:,.0f} | {made_s[policy]:,.0f} | {gains[0]:.2f}x | "
            f"{gains[1]:.2f}x | {real_hits[policy]:.3f} | {made_hits[policy]:.3f} |"
        )
    lines.append("")
    for source, runs in (("recorded", recorded), ("generated", generated)):
        stock = [run for run in runs if run.policy == POLICIES[0]]
        loads = ", ".join(
            f"{run.num_turns:,} turns of {run.prompt_tokens / run.num_turns:,.0f} tokens"
            for run in stock
        )
        lines.append(f"The {source} sessions by seed: {loads}.")
    for what, value in (("LLM time", _llm_time_s), ("hit ratio", _hit_ratio)):
        seeds = sorted({run.seed for run in recorded})
        by_seed = [
            _by_policy([run for run in recorded if run.seed == seed], value) for seed in seeds
        ]
        among = [_tau(left, right) for left, right in combinations(by_seed, 2)]
        tau = _tau(_by_policy(recorded, value), _by_policy(generated, value))
        lines.append(
            f"Kendall's tau of the order by {what}: {tau:.2f}; "
            f"between recorded seeds {statistics.median(among):.2f}."
        )
    return "\n".join(lines) + "\n"


def _tau(left: Mapping[str, float], right: Mapping[str, float]) -> float:
    pairs = [(left[policy], right[policy]) for policy in POLICIES]
    return float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)


def _by_policy(runs: Iterable[RunResult], value: Callable[[RunResult], float]) -> dict[str, float]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        found[run.policy].append(value(run))
    return {policy: statistics.mean(found[policy]) for policy in POLICIES}


def _llm_time_s(run: RunResult) -> float:
    assert run.session_llm_time_s is not None
    return run.session_llm_time_s.mean


def _hit_ratio(run: RunResult) -> float:
    assert run.token_hit_ratio is not None
    return run.token_hit_ratio


def _named(value: Any) -> Any:
    return value.name if isinstance(value, Path) else value


if __name__ == "__main__":
    main()
