"""The measured points as simulations: load, policy, engine, and what is varied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from anchor.grafted_trees import graft, interleave
from holdfast.core.window import Window
from holdfast.sim.load import SimulationOptions
from holdfast.sim.plan import RunPlan, Workload
from holdfast.sim.profile_file import load_profile
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection

__all__ = [
    "FULL",
    "LONG_PAUSES",
    "MEASURED",
    "POINTS",
    "STOCK",
    "SUB_AGENTS",
    "TIER",
    "Point",
    "output_scale",
    "plan",
    "runs",
    "sessions",
]

MEASURED: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("measured.json").read_text())

STOCK: Final = "vllm-default"
GATE: Final = "llm-d-thunderagent"
DECAY: Final = "thunderagent"
TIER: Final = 8_738_133
PROFILE: Final = "2xh100-qwen3-coder-30b-fp8"

# What a variation may consist of, joined by commas.
FULL: Final = "full cache"
SUB_AGENTS: Final = "sub-agents"
SHARED: Final = "shared heads"
LONG_PAUSES: Final = "pauses to 300 s"
SLOW_LINK: Final = "half the link"
SMALL_BLOCKS: Final = "blocks of 16"
LESS_KV: Final = "85 % of the KV cache"  # as much as requests fill in step 20 while others wait
_VARIATIONS: Final = {FULL, SUB_AGENTS, SHARED, LONG_PAUSES, SLOW_LINK, SMALL_BLOCKS, LESS_KV}


@dataclass(frozen=True, slots=True)
class Point:
    """One load under one policy.

    Attributes:
        step: The measurement it is compared with: 8, 20 (with 13) or 24.
        concurrency: Sessions, or trees, live at once.
        host_tokens: Size of the host tier; 0 for none.
        policy: Name of the policy.
        variation: What differs from the step's set-up; "" for nothing.
    """

    step: int
    concurrency: int
    host_tokens: int = 0
    policy: str = STOCK
    variation: str = ""

    def __post_init__(self) -> None:
        assert self.varied <= _VARIATIONS, self.variation

    @property
    def varied(self) -> set[str]:
        """The parts of the variation."""
        return set(filter(None, self.variation.split(", ")))

    @property
    def name(self) -> str:
        """A name for files."""
        parts = [f"gpu_anchor-{self.step}-c{self.concurrency}", self.policy]
        parts += ["tier"] if self.host_tokens else []
        parts += [self.variation] if self.variation else []
        return "-".join(parts).replace(" ", "_").replace(",", "")

    @property
    def window(self) -> Window:
        """All of the measured time."""
        if self.step == 24:
            return Window(0.0, 3600.0)
        is_long = self.step == 8 or self.concurrency >= 192
        return Window(0.0, 2700.0 if is_long else 1800.0)

    @property
    def steady(self) -> Window:
        """What is left of it after the time that the measurements leave out."""
        start_s = 300.0 if self.step == 24 else 900.0 if self.concurrency >= 192 else 600.0
        return Window(start_s, self.window.end_s - start_s)

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON."""
        return asdict(self)


def _stock(step: int, loads: Sequence[int], host_tokens: int = 0) -> list[Point]:
    return [Point(step, load, host_tokens) for load in loads]


def _others(policy: str, *points: Point) -> list[Point]:
    return [replace(point, policy=policy) for point in points]


def _varied(variation: str, *points: Point) -> list[Point]:
    return [replace(point, variation=variation) for point in points]


_BOTH: Final = f"{FULL}, {SUB_AGENTS}"

# Stock around the cliff; what belongs beside it; then the rest.
_CLIFFS: Final = (
    *_stock(24, (32, 24, 28)),
    *_stock(20, (32, 24)),
    *_stock(20, (32, 64), TIER),
)
_FIRST: Final = (
    *_others(GATE, Point(20, 32), Point(24, 32)),
    *_others("holdfast", Point(20, 32), Point(24, 32)),
    *_varied(FULL, Point(20, 64, TIER), Point(24, 28)),
    *_varied(f"{FULL}, {LESS_KV}", Point(20, 64, TIER)),
    *_varied(LONG_PAUSES, Point(24, 32), Point(24, 40), Point(24, 24)),
    *_stock(24, (16, 20, 40)),
    *_stock(20, (128,), TIER),
    *_stock(20, (128,)),
    *_varied(_BOTH, Point(24, 24), Point(24, 32), Point(20, 40), Point(20, 32)),
    *_others(GATE, Point(20, 64, TIER), Point(24, 16), Point(20, 128)),
)
_THEN: Final = (
    *_stock(8, (64,)),
    *_others(DECAY, Point(8, 64)),
    *_varied(f"{FULL}, {LESS_KV}", Point(20, 32, TIER)),
    *_others("holdfast", Point(20, 64, TIER)),
    *_varied(SLOW_LINK, Point(20, 64, TIER)),
    *_others("cachewise", Point(20, 32), Point(24, 32)),
    *_stock(20, (48, 16, 28)),
    *_varied(FULL, Point(20, 32), Point(20, 32, TIER), Point(20, 128, TIER)),
    *_varied(SUB_AGENTS, Point(20, 40)),
    *_stock(24, (12,)),
    *_varied(SHARED, Point(20, 32)),
    *_stock(20, (192,), TIER),
    *_varied(_BOTH, Point(24, 28), Point(20, 32, TIER), Point(24, 16)),
    *_others(GATE, Point(24, 20), Point(20, 32, TIER), Point(20, 128, TIER)),
    *_stock(24, (32, 64, 96, 128), TIER),
    *_varied(SMALL_BLOCKS, Point(20, 32)),
)
POINTS: Final = (*_CLIFFS, *_FIRST, *_THEN)


def runs(num_seeds: int) -> list[tuple[Point, int]]:
    """Points with seeds, the most telling first; variations have one seed. Pure."""
    once = [(point, 0) for point in POINTS]
    several = [(p, seed) for p in POINTS if not p.variation for seed in range(1, num_seeds)]
    return [*once, *several]


@cache
def output_scale(step: int, traces: Path) -> float:
    """Factor that makes the traces' mean answer the measured one. Reads files.

    Measured is the mean over all requests of the step's points with at most 64 at once. Past that
    most of what was answered are first turns, and long answers were cancelled.
    """
    num_tokens = num_requests = 0.0
    for point in MEASURED["step_20" if step == 8 else f"step_{step:02}"]["points"]:
        if point["concurrency"] <= 64:
            requests = _mean(point["num_requests"])
            seconds = point.get("window_s", 3600)
            num_tokens += _mean(point["output_tokens_per_s"]) * seconds
            num_requests += requests
    single = _single_streams(_workload(Point(step, 1), traces), 0)
    turns = [turn for session in single for turn in session.turns]
    return num_tokens / num_requests * len(turns) / sum(turn.output_tokens for turn in turns)


def sessions(point: Point, traces: Path, seed: int) -> Sequence[Session]:
    """The sessions of a run. Reads files."""
    workload = _workload(point, traces)
    if SUB_AGENTS not in point.varied:
        return _single_streams(workload, seed)
    # Sub-agents take the place of whole pauses, so pauses are cut after them.
    uncut = replace(workload, selection=replace(workload.selection, gap_cap_s=None))
    streams = _single_streams(uncut, seed)
    joined = graft(streams, seed) if point.step == 24 else interleave(streams, seed)
    return workload.selection.select(joined).sessions


def plan(point: Point, traces: Path, seed: int) -> RunPlan:
    """The plan of a run. Reads files."""
    is_step_24 = point.step == 24
    profile = load_profile(PROFILE + ("-full" if FULL in point.varied else ""))
    if SLOW_LINK in point.varied:
        link = profile.host_link_bytes_per_s / 2
        profile = msgspec.structs.replace(profile, host_link_bytes_per_s=link)
    options = SimulationOptions(
        point.concurrency,
        output_scale=output_scale(point.step, traces),
        session_ids=True,
        is_tree=is_step_24,
        is_isolated=SHARED not in point.varied,
        mid_session=(0.25, 0.75) if is_step_24 else None,
        num_warm_up_turns=11 if is_step_24 else 0,
        idle_cap_s=10.0 if is_step_24 else None,
        window=point.window,
    )
    return RunPlan(
        policy=point.policy,
        seed=seed,
        workload=_workload(point, traces),
        options=options,
        profile=profile,
        kv_tokens=round(profile.kv_tokens * (0.85 if LESS_KV in point.varied else 1.0)),
        block_tokens=16 if SMALL_BLOCKS in point.varied else 64,
        host_tokens=point.host_tokens,
    )


def _workload(point: Point, traces: Path) -> Workload:
    # AgentX cuts pauses of a whole tree to 300 s, and sub-agents run in most of them. At an equal
    # working set single streams have more requests in flight with pauses of up to 60 s, and fewer
    # with 300 s.
    gap_cap_s = (300.0 if LONG_PAUSES in point.varied else 60.0) if point.step == 24 else 10.0
    max_model_len = 262_144 if point.step == 24 else 245_000
    return Workload(traces, SessionSelection(gap_cap_s=gap_cap_s, max_model_len=max_model_len))


@lru_cache(maxsize=2)
def _single_streams(workload: Workload, seed: int) -> Sequence[Session]:
    return workload.sessions(seed).sessions


def _mean(value: float | list[float]) -> float:
    return value[0] if isinstance(value, list) else value
