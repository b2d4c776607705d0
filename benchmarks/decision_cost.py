"""Compares the CPU time of Holdfast's scheduler with stock vLLM's, without a model.

Both schedulers serve the same seeded closed loop of many-turn sessions in one process, in
alternating chunks of engine steps; each pair of neighbouring chunks gives one ratio. Times are CPU
time of the thread, so that a busy machine disturbs them less. The quality of the decisions is not
measured.

Usage: python benchmarks/decision_cost.py [--requests 32 ...] [--regime past] [--out DIR]
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["main"]

BLOCK_TOKENS = 16
SHARED_BLOCKS = 16
PAST_BLOCKS = 500
NUM_TURNS = 5
OUTPUT_TOKENS = (64, 192)
STEP_S = 0.008
TOKEN_S = 0.00004
GAP_MEDIAN_S, GAP_SIGMA = 2.0, 1.5
AWAY_SHARE = 0.25
FILLS = {"below": 0.75, "past": 2.5}
"""Contexts of all live sessions at their longest, as a share of the cache."""
DECISIONS = ("_prepare", "_note_planned", "_arrive", "_leave")
"""Holdfast's own entry points; what the engine calls back, as victims, is in the ratios only."""


@dataclass(frozen=True, slots=True)
class Case:
    """A point of the table: how full the cache is, and requests in the engine."""

    regime: str
    num_requests: int


class Workload:
    """Keeps `num_requests` requests in one engine: as a turn ends, a session returns."""

    def __init__(self, scheduler_cls: type[Any], case: Case, num_blocks: int, seed: int) -> None:
        from holdfast.vllm.simulator.workerless import EngineShape, WorkerlessEngine

        shape = EngineShape(num_blocks=num_blocks, max_num_seqs=case.num_requests)
        self.engine = WorkerlessEngine(scheduler_cls, shape)
        self.now_s = 0.0
        self.engine.scheduler.clock = lambda: self.now_s
        self.schedule_s: list[float] = []
        self.host_s = self.decision_s = 0.0
        self.num_turns = self.num_scheduled_tokens = self.num_scheduled_requests = 0
        self._wrap("schedule", self.schedule_s.append)
        self._wrap("update_from_output", self._add_host)
        self._wrap("add_request", self._add_host)
        for name in DECISIONS:
            if hasattr(self.engine.scheduler, name):
                self._wrap(name, self._add_decision)
        num_sessions = int(case.num_requests * (1 + AWAY_SHARE))
        self._peak_blocks = int(FILLS[case.regime] * num_blocks / num_sessions)
        self._random = random.Random(seed)
        self._away: list[tuple[float, int, _Session]] = []
        self._order = itertools.count()
        self._live: dict[str, _Session] = {}
        self._seed = seed
        self._fill(num_blocks)
        for number in range(num_sessions):
            session = self._session()
            if number < case.num_requests:
                self._send(session)
            else:
                self._leave(session)

    def step(self) -> None:
        """One engine step, then as many returns as turns ended."""
        done = self.engine.step()
        num_tokens = sum(done.num_scheduled_tokens.values())
        self.now_s += STEP_S + TOKEN_S * num_tokens
        self.num_scheduled_tokens += num_tokens
        self.num_scheduled_requests += len(done.num_scheduled_tokens)
        for request_id in done.finished:
            self.num_turns += 1
            session = self._live.pop(request_id)
            session.num_turns += 1
            self._leave(session if session.num_turns < NUM_TURNS else self._session())
        for _ in done.finished:
            self._send(heapq.heappop(self._away)[2])

    def _fill(self, num_blocks: int) -> None:
        """Fill the cache with past sessions' blocks: an engine in use has no blank ones."""
        for number in range(num_blocks // PAST_BLOCKS):
            keys = [f"past/{number}/{i}".encode() for i in range(PAST_BLOCKS)]
            num_tokens = PAST_BLOCKS * BLOCK_TOKENS - 1
            self.engine.add(self.engine.request(f"past/{number}", keys, num_tokens, 1))
        while self.engine.scheduler.get_num_unfinished_requests():
            self.now_s += STEP_S + TOKEN_S * sum(self.engine.step().num_scheduled_tokens.values())

    def _wrap(self, name: str, note: Callable[[float], None]) -> None:
        act = getattr(self.engine.scheduler, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started_s = time.thread_time()
            result = act(*args, **kwargs)
            note(time.thread_time() - started_s)
            return result

        setattr(self.engine.scheduler, name, timed)

    def _add_host(self, elapsed_s: float) -> None:
        self.host_s += elapsed_s

    def _add_decision(self, elapsed_s: float) -> None:
        self.decision_s += elapsed_s

    def _session(self) -> _Session:
        number = next(self._order)
        return _Session(number, self._peak_blocks, random.Random(f"{self._seed}/{number}"))

    def _leave(self, session: _Session) -> None:
        gap_s = session.random.lognormvariate(0.0, GAP_SIGMA) * GAP_MEDIAN_S
        heapq.heappush(self._away, (self.now_s + gap_s, session.number, session))

    def _send(self, session: _Session) -> None:
        num_prompt_tokens, num_output_tokens = session.next_turn()
        request = self.engine.request(
            f"{session.number}.{session.num_turns}",
            session.block_keys,
            num_prompt_tokens,
            num_output_tokens,
        )
        self._live[request.request_id] = session
        self.engine.add(request)


class _Session:
    """An agent: each prompt is the last one, its answer and a tool's result."""

    def __init__(self, number: int, peak_blocks: int, source: random.Random) -> None:
        self.number = number
        self.num_turns = 0
        self.random = source
        self.block_keys = [
            f"shared/{i}".encode() if i < SHARED_BLOCKS else f"{number}/{i}".encode()
            for i in range(2 * peak_blocks + 64)
        ]
        output_tokens = sum(OUTPUT_TOKENS) // 2
        most_tokens = peak_blocks * BLOCK_TOKENS
        self._num_tokens = max(most_tokens // 2, most_tokens - 2 * NUM_TURNS * output_tokens)
        self._result_tokens = max(
            (most_tokens - self._num_tokens) // NUM_TURNS - output_tokens, BLOCK_TOKENS
        )

    def next_turn(self) -> tuple[int, int]:
        """Prompt and output length of the next turn (tokens)."""
        num_output_tokens = self.random.randint(*OUTPUT_TOKENS)
        num_prompt_tokens = self._num_tokens
        result_tokens = self.random.randint(1, 2 * self._result_tokens)
        self._num_tokens += num_output_tokens + result_tokens
        return num_prompt_tokens, num_output_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """Time of one scheduler over consecutive steps (s), and what it did."""

    schedule_median_s: float
    schedule_s: float
    host_s: float
    decision_s: float
    num_steps: int
    num_turns: int
    num_scheduled_requests: int
    num_scheduled_tokens: int


def run_chunk(load: Workload, num_steps: int) -> Chunk:
    """Run `num_steps` steps of one side and return what they cost."""
    load.schedule_s.clear()
    load.host_s = load.decision_s = 0.0
    load.num_turns = load.num_scheduled_tokens = load.num_scheduled_requests = 0
    for _ in range(num_steps):
        load.step()
    return Chunk(
        statistics.median(load.schedule_s),
        sum(load.schedule_s),
        sum(load.schedule_s) + load.host_s,
        load.decision_s,
        num_steps,
        load.num_turns,
        load.num_scheduled_requests,
        load.num_scheduled_tokens,
    )


def evictions_a_step(load: Workload, num_steps: int) -> float:
    """Cached blocks evicted a step, in steps that are not timed."""
    from holdfast.vllm.eviction_meter import watch_evictions

    evicted: list[None] = []
    watch_evictions(
        load.engine.scheduler.kv_cache_manager.block_pool, lambda _block: evicted.append(None)
    )
    for _ in range(num_steps):
        load.step()
    return len(evicted) / num_steps


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Run both sides of one case; returns its row of the results."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    from holdfast.vllm.scheduler import HoldfastScheduler

    sides = {
        name: Workload(cls, case, args.blocks, args.seed)
        for name, cls in (("stock", AsyncScheduler), ("holdfast", HoldfastScheduler))
    }
    for load in sides.values():
        for _ in range(args.warm_up_steps):
            load.step()
    gc.collect()
    gc.freeze()
    pairs: list[dict[str, Chunk]] = []
    for number in range(args.pairs):
        order = list(sides) if number % 2 else list(reversed(sides))
        chunks = {name: run_chunk(sides[name], args.steps) for name in order}
        pairs.append(chunks)
    row = summarize(case, pairs)
    for name, load in sides.items():
        row[name]["evicted_blocks_per_step"] = evictions_a_step(load, args.steps)
        row[name]["num_running"] = len(load.engine.scheduler.running)
        row[name]["num_waiting"] = len(load.engine.scheduler.waiting)
    gc.unfreeze()
    return row


def summarize(case: Case, pairs: Sequence[dict[str, Chunk]]) -> dict[str, Any]:
    """Return the ratios Holdfast / stock over the pairs, and each side's counts."""

    def ratio(of: Callable[[Chunk], float]) -> dict[str, float]:
        ratios = [of(pair["holdfast"]) / of(pair["stock"]) for pair in pairs]
        low, _, high = statistics.quantiles(ratios, n=4)
        return {"median": statistics.median(ratios), "q25": low, "q75": high}

    row: dict[str, Any] = {
        "regime": case.regime,
        "num_requests": case.num_requests,
        "num_pairs": len(pairs),
        "schedule_median_ratio": ratio(lambda c: c.schedule_median_s),
        "schedule_mean_ratio": ratio(lambda c: c.schedule_s / c.num_steps),
        "schedule_per_request_ratio": ratio(
            lambda c: c.schedule_s / max(c.num_scheduled_requests, 1)
        ),
        "host_mean_ratio": ratio(lambda c: c.host_s / c.num_steps),
        "host_per_turn_ratio": ratio(lambda c: c.host_s / max(c.num_turns, 1)),
    }
    for name in ("stock", "holdfast"):
        chunks = [pair[name] for pair in pairs]
        num_steps = sum(c.num_steps for c in chunks)
        row[name] = {
            "schedule_median_us": 1e6 * statistics.median(c.schedule_median_s for c in chunks),
            "schedule_mean_us": 1e6 * sum(c.schedule_s for c in chunks) / num_steps,
            "host_mean_us": 1e6 * sum(c.host_s for c in chunks) / num_steps,
            "decision_mean_us": 1e6 * sum(c.decision_s for c in chunks) / num_steps,
            "turns_per_step": sum(c.num_turns for c in chunks) / num_steps,
            "requests_per_step": sum(c.num_scheduled_requests for c in chunks) / num_steps,
            "tokens_per_step": sum(c.num_scheduled_tokens for c in chunks) / num_steps,
        }
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| cache | requests | `schedule()` median | `schedule()` mean "
        "| `schedule()` a scheduled request | all host work, a step "
        "| all host work, a turn | own decisions, µs a step | running, stock → Holdfast "
        "| evicted blocks a step, stock → Holdfast |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        stock, ours = row["stock"], row["holdfast"]
        lines.append(
            f"| {row['regime']} the cliff | {row['num_requests']:,} "
            f"| {_cell(row['schedule_median_ratio'])} | {_cell(row['schedule_mean_ratio'])} "
            f"| {_cell(row['schedule_per_request_ratio'])} "
            f"| {_cell(row['host_mean_ratio'])} | {_cell(row['host_per_turn_ratio'])} "
            f"| {ours['decision_mean_us']:.0f} "
            f"| {stock['requests_per_step']:.0f} → {ours['requests_per_step']:.0f} "
            f"| {stock['evicted_blocks_per_step']:.0f} → {ours['evicted_blocks_per_step']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _cell(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['q25']:.2f}-{ratio['q75']:.2f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, action="append", help="running + waiting (count)")
    parser.add_argument("--regime", choices=list(FILLS), action="append")
    parser.add_argument("--blocks", type=int, default=100_000, help="blocks of 16 tokens")
    parser.add_argument("--warm-up-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=50, help="steps a chunk")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of chunks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for decision_cost.json and .md")
    args = parser.parse_args()
    args.requests = args.requests or [32, 256, 1024]
    args.regime = args.regime or list(FILLS)
    return args


def main() -> None:
    """Measure every case and write or print the table."""
    args = _arguments()
    os.environ["HOLDFAST_STRICT"] = "true"  # an error must not pass as the price of stock
    rows = []
    for regime, num_requests in itertools.product(args.regime, args.requests):
        rows.append(measure(Case(regime, num_requests), args))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = table(rows)
    print(text)
    if args.out is None:
        return
    from holdfast.report.manifest import run_manifest

    arguments = {k: v for k, v in vars(args).items() if k != "out"}
    manifest = run_manifest(arguments=arguments, runs=())
    manifest["seeds"] = [args.seed]
    document = {"schema": "holdfast.decision_cost/1", "manifest": manifest, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "decision_cost.json").write_text(json.dumps(document, indent=1) + "\n")
    (args.out / "decision_cost.md").write_text(text)


if __name__ == "__main__":
    main()
