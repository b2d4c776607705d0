"""Bounds the throughput of any policy on recorded sessions, by a relaxation.

python benchmarks/throughput_bound.py --traces PATH [--seeds N] [--output DIR]

A turn costs engine time for its new tokens and its answer, and memory (blocks times seconds) while
it is served. For each pause a policy chooses: keep the context, which costs memory for as long as
the pause lasts, or compute it again, which costs engine time. Neither the engine's time nor the
cache's blocks times the run's length can be exceeded, so the run takes at least

    min over choices of max(engine time, memory / cache size)

A policy that knows every pause in advance chooses by engine time saved per memory, dearest first
(the greedy optimum of the relaxed problem, to within one context). One that knows nothing keeps
every context for the same time at most, the best of a grid. A decode step's fixed cost is shared by
as many as fit beside each other. Order, queues and fairness cost nothing here; they do in fact.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.sim.plan import Workload
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.traces.record import common_prefix_length
from holdfast.traces.selection import SessionSelection

LOADS = (
    ("h100-llama3.1-8b", 10, 20),
    ("h100-llama3.1-8b", 20, 32),
    ("2xh200-qwen2.5-coder-32b", 18, 20),
    ("2xh200-qwen2.5-coder-32b", 36, 36),
)
GAP_CAP_S = 120.0
MAX_MODEL_LEN = 200_000
TIMES_TO_LIVE_S = (0.0, *(2.0**i for i in range(-3, 8)), float("inf"))


@dataclass(frozen=True)
class Course:
    """Costs of the turns of a run; arrays over turns, in seconds.

    `served` and `held` are shares of the cache times seconds.
    """

    new: np.ndarray
    answers: np.ndarray
    again: np.ndarray
    served: np.ndarray
    gaps: np.ndarray
    share: np.ndarray

    def knowing(self) -> float:
        """Shortest run with every pause known (s)."""
        held = self.share * self.gaps
        order = np.argsort(-self.again / np.maximum(held, 1e-9))
        engine = self.new.sum() + self.answers.sum() + self.again.sum()
        engine = engine - np.cumsum(self.again[order])
        memory = self.served.sum() + np.cumsum(held[order])
        return float(np.maximum(engine, memory).min())

    def with_time_to_live(self, limit_s: float) -> float:
        """Length of the run with contexts kept for at most so long (s)."""
        again = self.again[self.gaps > limit_s].sum()
        engine = self.new.sum() + self.answers.sum() + again
        memory = self.served.sum() + (self.share * np.minimum(self.gaps, limit_s)).sum()
        return float(max(engine, memory))


def course(profile: CostProfile, concurrency: int, workload: Workload, seed: int) -> Course:
    """Costs of the sessions of a seed."""
    rows = []
    for session in workload.sessions(seed).sessions:
        before: tuple[int, ...] = ()
        for number, turn in enumerate(session.turns):
            shared = common_prefix_length(before, turn.block_ids) * session.block_size_tokens
            gap_s = turn.gap_s if number else 0.0
            rows.append((turn.prompt_tokens, turn.output_tokens, shared, gap_s))
            before = turn.block_ids
    prompt, output, shared, gaps = np.array(rows, dtype=float).T

    def prefill_s(tokens: np.ndarray, context: np.ndarray) -> np.ndarray:
        attended = tokens * (context + 0.5 * tokens)
        per_token, per_pair = profile.prefill_s_per_token, profile.prefill_s_per_token_context
        return np.asarray(per_token * tokens + per_pair * attended)

    share = prompt / profile.kv_tokens
    own_s = profile.decode_s_per_seq + profile.decode_s_per_context_token * prompt
    beside = np.maximum(share, 1.0 / concurrency)
    answers = output * (profile.step_base_s * beside + own_s)
    new = prefill_s(prompt - shared, shared)
    served = share * (new + output * (profile.step_base_s + own_s))
    return Course(new, answers, prefill_s(shared, np.zeros_like(shared)), served, gaps, share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    lines = [
        "| engine | at once | seed | engine time, all kept (s) | nothing kept (s) | shortest run, "
        "every pause known (s) | one time to live (s) | throughput gain over nothing kept: known, "
        "not known |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, concurrency, num_sessions in LOADS:
        selection = SessionSelection(num_sessions, gap_cap_s=GAP_CAP_S, max_model_len=MAX_MODEL_LEN)
        workload = Workload(options.traces, selection)
        for seed in range(options.seeds):
            costs = course(load_profile(name), concurrency, workload, seed)
            kept = costs.new.sum() + costs.answers.sum()
            nothing = costs.with_time_to_live(-1.0)
            known = costs.knowing()
            blind = min(costs.with_time_to_live(limit_s) for limit_s in TIMES_TO_LIVE_S)
            lines.append(
                f"| {name} | {concurrency} of {num_sessions} | {seed} | {kept:,.0f} "
                f"| {nothing:,.0f} | {known:,.0f} | {blind:,.0f} "
                f"| {nothing / known:.2f}x, {nothing / blind:.2f}x |"
            )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        stem = "generated" if options.traces is None else options.traces.name
        (options.output / f"throughput_bound-{stem}.md").write_text(text)


if __name__ == "__main__":
    main()
