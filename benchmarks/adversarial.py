"""Measures Holdfast against stock vLLM where its assumptions are wrong.

python benchmarks/adversarial.py [--loads NAME,...] [--seeds N] [--jobs N] [--output DIR]

one-shots: no session returns.
scans: agents beside a stream of long prompts that never return.
bursts: the same in waves.
abandoned: sessions pause as if for a tool after their second turn and never return.
equal-gaps: all pauses are alike, so that no session ranks before another.
inverted: the meaning of a turn's end for the pause turns into its opposite half-way.
lies: a turn's end means nothing; pauses are a second or two minutes.
shrinking: every third prompt drops half of what came before, so that keeping it is of no use.

Each case is written as WEKA files under DIR and simulated on one H100 with Llama-3.1-8B, 16
sessions at once until all have ended, every policy on the same sessions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from simulated_table import Load, make_table, table_options, table_parser

BLOCK_TOKENS = 64
POLICIES = ("vllm-default", "holdfast", "clairvoyant")
LOAD = (
    *("--profile", "h100-llama3.1-8b", "--concurrency", "16"),
    *("--max-model-len", "400000"),
)

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
    options = table_options(table_parser(__doc__).parse_args())
    sessions = options.output / "adversarial"
    for name in CASES:
        for seed in range(options.num_seeds):
            write_case(name, seed, sessions / f"{name}-{seed}")
    loads = [Load(n, LOAD, POLICIES, n, f"{sessions}/{n}-{{seed}}") for n in CASES]
    make_table("adversarial", loads, options)


if __name__ == "__main__":
    main()
