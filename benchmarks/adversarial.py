"""Measures Holdfast against stock vLLM where its assumptions are wrong.

python benchmarks/adversarial.py [--case NAME] [--seeds N] [--jobs N] [--output DIR]

one-shots: no session returns.
scans: agents beside a stream of long prompts that never return.
bursts: the same in waves.
abandoned: sessions pause as if for a tool after their second turn and never return.
equal-gaps: all pauses are alike, so that no session ranks before another.
inverted: the meaning of a turn's end for the pause turns into its opposite half-way.
lies: a turn's end means nothing; pauses are a second or two minutes.
shrinking: every third prompt drops half of what came before, so that keeping it is of no use.

Each case is written as WEKA files under DIR and simulated on one H100 with Llama-3.1-8B, 16
sessions at once, stock and Holdfast on the same sessions.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from holdfast.report.document import read_document

BLOCK_TOKENS = 64
AT_ONCE = 16
PROFILE = "h100-llama3.1-8b"

_contents = count()


@dataclass
class Agent:
    """A session under construction: its prompt as content ids, and its calls so far."""

    source: random.Random
    prompt: list[int] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    now_s: float = 0.0

    def turn(self, new_tokens: int, gap_s: float, stop: str = "tool_use", out: int = 200) -> None:
        """Add to the prompt, wait, send it and answer it."""
        num_blocks = max(new_tokens // BLOCK_TOKENS, 1)
        self.prompt += [next(_contents) for _ in range(num_blocks)]
        api_s = out * 0.02
        self.now_s += gap_s
        call = {"t": self.now_s, "type": "s", "stop": stop, "api_time": api_s, "out": out}
        call |= {"in": len(self.prompt) * BLOCK_TOKENS, "hash_ids": list(self.prompt)}
        self.calls.append(call if not self.calls else call | {"think_time": gap_s})
        self.now_s += api_s

    def drop(self, share: float) -> None:
        """Drop the later part of the prompt, as a compaction does."""
        del self.prompt[int(len(self.prompt) * (1 - share)) :]


def _coding(source: random.Random, num_turns: int = 30) -> Agent:
    agent = Agent(source)
    agent.turn(20_000, 0.0)
    for _ in range(num_turns - 1):
        agent.turn(source.randint(500, 4_000), source.lognormvariate(0.7, 1.2))
    return agent


def _one_shot(source: random.Random, least: int, most: int) -> Agent:
    agent = Agent(source)
    agent.turn(source.randint(least, most), 0.0, stop="end_turn")
    return agent


def _one_shots(source: random.Random) -> Iterator[Agent]:
    for _ in range(300):
        yield _one_shot(source, 2_000, 80_000)


def _scans(source: random.Random) -> Iterator[Agent]:
    for _ in range(12):
        yield _coding(source)
        for _ in range(10):
            yield _one_shot(source, 60_000, 60_000)


def _bursts(source: random.Random) -> Iterator[Agent]:
    for _ in range(3):
        for _ in range(4):
            yield _coding(source)
        for _ in range(40):
            yield _one_shot(source, 40_000, 40_000)


def _abandoned(source: random.Random) -> Iterator[Agent]:
    for _ in range(120):
        agent = Agent(source)
        agent.turn(source.randint(20_000, 60_000), 0.0)
        agent.turn(1_000, source.lognormvariate(0.7, 1.2))
        yield agent


def _equal_gaps(source: random.Random) -> Iterator[Agent]:
    for _ in range(24):
        agent = Agent(source)
        agent.turn(60_000, 0.0)
        for _ in range(20):
            agent.turn(1_000, 10.0)
        yield agent


def _inverted(source: random.Random) -> Iterator[Agent]:
    for number in range(32):
        agent = Agent(source)
        stop = "tool_use"
        agent.turn(40_000, 0.0, stop)
        for _ in range(16):
            is_short = (stop == "tool_use") == (number < 16)
            stop_next = source.choice(["tool_use", "end_turn"])
            agent.turn(1_500, 1.0 if is_short else 120.0, stop_next)
            stop = stop_next
        yield agent


def _lies(source: random.Random) -> Iterator[Agent]:
    for _ in range(32):
        agent = Agent(source)
        agent.turn(40_000, 0.0)
        for _ in range(16):
            gap_s = source.choice([1.0, 1.0, 120.0])
            agent.turn(1_500, gap_s, source.choice(["tool_use", "end_turn"]))
        yield agent


def _shrinking(source: random.Random) -> Iterator[Agent]:
    for _ in range(24):
        agent = Agent(source)
        agent.turn(60_000, 0.0)
        for number in range(20):
            if number % 3 == 2:
                agent.drop(0.9)
                agent.turn(50_000, source.lognormvariate(0.7, 1.2))
            else:
                agent.turn(2_000, source.lognormvariate(0.7, 1.2))
        yield agent


CASES: dict[str, Callable[[random.Random], Iterator[Agent]]] = {
    "one-shots": _one_shots,
    "scans": _scans,
    "bursts": _bursts,
    "abandoned": _abandoned,
    "equal-gaps": _equal_gaps,
    "inverted": _inverted,
    "lies": _lies,
    "shrinking": _shrinking,
}


def write_case(name: str, seed: int, folder: Path) -> None:
    """Write the sessions of a case as WEKA files, in the order in which they start."""
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(f"{name}/{seed}")
    for number, agent in enumerate(CASES[name](source)):
        document = {"id": f"{name}-{number:04}", "block_size": BLOCK_TOKENS}
        document |= {"hash_id_scope": "local", "requests": agent.calls}
        (folder / f"{number:04}.json").write_text(json.dumps(document))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--policies", default="vllm-default,holdfast")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    lines = [
        "| case | policy | hit ratio | evicted | LLM time a session | request latency mean | P99 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in options.case or CASES:
        results: dict[str, list[dict[str, float]]] = {}
        for seed in range(options.seeds):
            for policy, figures in _simulate(name, seed, options).items():
                results.setdefault(policy, []).append(figures)
        lines += _rows(name, results)
        print(lines[-1], flush=True)
    (options.output / "adversarial.md").write_text("\n".join(lines) + "\n")
    # Every run with its manifest, by case and seed.
    parts = sorted((options.output / "adversarial").glob("*.json"))
    documents = {path.stem: msgspec.json.decode(path.read_bytes()) for path in parts}
    (options.output / "adversarial.json").write_bytes(msgspec.json.encode(documents))


def _simulate(name: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    folder = options.output / "adversarial" / f"{name}-{seed}"
    write_case(name, seed, folder)
    path = options.output / "adversarial" / f"{name}-{seed}.json"
    command = [
        *(sys.executable, "-m", "holdfast", "simulate", "--traces", str(folder)),
        *("--profile", PROFILE, "--policies", options.policies, "--concurrency", str(AT_ONCE)),
        *("--max-model-len", "400000", "--seeds", "1", "--jobs", options.jobs),
        *("--json", str(path)),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    figures = {}
    for run in read_document(path).runs:
        assert run.session_llm_time_s and run.request_latency_s
        figures[run.policy] = {
            "hit": run.token_hit_ratio or 0.0,
            "evicted": run.evicted_blocks or 0.0,
            "llm": run.session_llm_time_s.mean,
            "mean": run.request_latency_s.mean,
            "p99": run.request_latency_s.p99,
        }
    return figures


def _rows(name: str, results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Ratios to stock, better above 1: the median of the seeds, all seeds in brackets."""
    stock = results.pop("vllm-default")
    rows = []
    for policy, runs in results.items():
        pairs = list(zip(stock, runs, strict=True))
        cells = [", ".join(f"{base['hit']:.2f} → {run['hit']:.2f}" for base, run in pairs)]
        for key in ("evicted", "llm", "mean", "p99"):
            ratios = sorted((b[key] / r[key]) if r[key] else 1.0 for b, r in pairs)
            rest = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            cells.append(f"{ratios[len(ratios) // 2]:.2f}x ({rest})")
        rows.append(f"| {name} | {policy} | " + " | ".join(cells) + " |")
    return rows


if __name__ == "__main__":
    main()
