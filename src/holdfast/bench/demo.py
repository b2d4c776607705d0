"""Stock vLLM against Holdfast on the same sessions, below and past the cliff.

Each policy and seed has one server. The points of a seed run on it one after the other, with an
emptied prefix cache. Holdfast keeps what it learned about tools at one point for the next, as in
service; nothing is carried from seed to seed.

The size of the KV cache follows from the sessions, and their gaps are short. The engine then limits
the sessions, not their gaps, and the distance past the cliff does not depend on the machine.

Then the same sessions run on Holdfast with a host tier and a pool, the engine restarts on that
pool, and each session takes the turn that all earlier runs left out. The cost of that turn without
tiers is measured on Holdfast's other server after its prefix cache is emptied, as by a restart.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdfast.bench.load import SendOptions
from holdfast.bench.model import KV_BYTES_PER_TOKEN, VOCAB_SIZE, build_tiny_model
from holdfast.bench.prompts import Alphabet
from holdfast.bench.replay import ReplayTarget, replay_sessions
from holdfast.bench.server import EngineOptions, EngineServer, ServedPolicy
from holdfast.bench.turn_records import append_turns
from holdfast.config import HoldfastConfig
from holdfast.core.results import RunResult, TurnRecord
from holdfast.errors import HoldfastError
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session
from holdfast.traces.scaling import TokenScale
from holdfast.traces.selection import SessionSelection
from holdfast.vllm.offload.arguments import tier_arguments
from holdfast.workload.synthetic import iterate_sessions

__all__ = [
    "POLICY_PAIR",
    "TIERED",
    "Demo",
    "DemoPlan",
    "DemoPoint",
    "DemoWatcher",
    "Scheduling",
    "kv_tokens_for",
    "sessions_for",
]

Scheduling = Literal["vllm-default", "holdfast", "holdfast-tiers"]

POLICY_PAIR: Final[tuple[ServedPolicy, ServedPolicy]] = ("vllm-default", "holdfast")
TIERED: Final = "holdfast-tiers"
"""Policy name of a run on Holdfast with a host tier and a pool."""

_MAX_GENERATED = 2000
_CLIFF_RATIO = 4
_HOST_RATIO = 2
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class DemoPoint:
    """One load.

    Attributes:
        concurrency: Sessions live at once.
        num_sessions: Sessions in all: the first ones of the seed.
    """

    concurrency: int
    num_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """The runs of a demonstration.

    Attributes:
        traces: File or directory of sessions; None generates them.
        points: One run for each; first below the cliff, then past it.
        seeds: One comparison for each. Every second one swaps the order of the policies.
        kv_tokens: Size of the KV cache; None derives it from the sessions.
        max_model_len: Leaves out sessions that outgrow it, in replayed tokens.
        max_turns: Cuts sessions to this many turns; one more is left for after the restart.
        token_scale: Replayed tokens per recorded token.
        time_scale: Replayed seconds per recorded second of a gap.
        gap_cap_s: Longest gap, in recorded seconds.
        has_tiers: Whether Holdfast also runs with tiers, and the engine is restarted.
    """

    traces: Path | None
    points: tuple[DemoPoint, ...]
    seeds: tuple[int, ...]
    kv_tokens: int | None
    max_model_len: int
    max_turns: int
    token_scale: float
    time_scale: float
    gap_cap_s: float
    has_tiers: bool


class DemoWatcher:
    """Is notified of the progress of a demonstration; this one ignores it."""

    def server_starts(self, scheduling: Scheduling, seed: int) -> None:
        """A server starts."""

    def run_starts(
        self, scheduling: Scheduling, seed: int, point: DemoPoint, num_turns: int
    ) -> None:
        """A run of `num_turns` turns begins."""

    def turn_ends(self, record: TurnRecord) -> None:
        """A turn of the run has ended."""

    def run_ends(self, result: RunResult) -> None:
        """A run is over; its result is also in `Demo.runs` or `Demo.restarted`."""

    def tiers_left_out(self, reason: str) -> None:
        """The part with tiers cannot run on this machine."""


@dataclass(slots=True)
class Demo:
    """One demonstration; its results are valid even after an interruption.

    Attributes:
        plan: The runs.
        directory: Holds the model, the servers' logs and, while in use, the pool.
        watcher: Is notified of the progress.
        runs: Finished runs, in the order in which they ran.
        restarted: Finished runs of the sessions' next turns after a restart, likewise.
        digests: SHA-256 by name of each trace file that was read, and of each seed's sessions.
        records: Directory for the turns of each run, as JSON lines; None writes none.
        kv_tokens: Size of the KV cache; 0 until it is known.
        no_tiers: Reason why the part with tiers cannot run here; None where it can.
    """

    plan: DemoPlan
    directory: Path
    watcher: DemoWatcher = field(default_factory=DemoWatcher)
    runs: list[RunResult] = field(default_factory=list)
    restarted: list[RunResult] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    records: Path | None = None
    kv_tokens: int = 0
    no_tiers: str | None = None

    def run(self) -> None:
        """Measure everything; ends servers and removes pools, also after an error.

        Raises:
            ConfigError: No session fits the plan.
            TraceError: The traces cannot be read.
            EngineError: A server does not start, or dies.
        """
        plan = self.plan
        model = build_tiny_model(self.directory / "model")
        sessions = {seed: sessions_for(plan, seed, self._note_digest) for seed in plan.seeds}
        self.kv_tokens = plan.kv_tokens or kv_tokens_for(plan, list(sessions.values()))
        has_tiers = plan.has_tiers and self._can_have_tiers()
        for index, (seed, chosen) in enumerate(sessions.items()):
            self.digests[f"sessions-{seed}"] = sessions_digest(chosen)
            for policy in POLICY_PAIR if index % 2 == 0 else POLICY_PAIR[::-1]:
                self._measure(policy, seed, chosen, model, has_tiers=has_tiers)
            if has_tiers:
                self._measure_tiers(seed, chosen, model)

    def _note_digest(self, report: FileReport) -> None:
        self.digests[report.path.name] = report.sha256

    def _can_have_tiers(self) -> bool:
        """Check as `holdfast serve` does; notifies the watcher where tiers cannot run."""
        seed = self.plan.seeds[0]
        try:
            tier_arguments(self._tiers(seed), ())
        except HoldfastError as error:
            self.no_tiers = str(error)
            self.watcher.tiers_left_out(self.no_tiers)
            return False
        finally:
            shutil.rmtree(self._pool(seed), ignore_errors=True)  # the check creates it
        return True

    def _tiers(self, seed: int) -> HoldfastConfig:
        host_bytes = _HOST_RATIO * _CLIFF_RATIO * self.kv_tokens * KV_BYTES_PER_TOKEN
        return HoldfastConfig(host_gib=host_bytes / _GIB, pool_dir=str(self._pool(seed)))

    def _pool(self, seed: int) -> Path:
        return self.directory / f"pool-{seed}"

    def _measure(
        self,
        policy: ServedPolicy,
        seed: int,
        sessions: Sequence[Session],
        model: Path,
        *,
        has_tiers: bool,
    ) -> None:
        with self._server(policy, seed, model) as server:
            for point in self.plan.points:
                server.reset_prefix_cache()
                known = _but_last_turns(sessions[: point.num_sessions])
                self._run(self.runs, server, policy, seed, point, known)
            if policy == "holdfast" and has_tiers:
                server.reset_prefix_cache()
                point = self.plan.points[-1]
                last = _last_turns(sessions[: point.num_sessions])
                self._run(self.restarted, server, policy, seed, point, last)

    def _measure_tiers(self, seed: int, sessions: Sequence[Session], model: Path) -> None:
        point = self.plan.points[-1]
        chosen = sessions[: point.num_sessions]
        try:
            for results, turns, start in (
                (self.runs, _but_last_turns(chosen), ""),
                (self.restarted, _last_turns(chosen), "-restarted"),
            ):
                with self._server(TIERED, seed, model, start) as server:
                    self._run(results, server, TIERED, seed, point, turns)
        finally:
            shutil.rmtree(self._pool(seed), ignore_errors=True)

    def _server(
        self, scheduling: Scheduling, seed: int, model: Path, start: str = ""
    ) -> EngineServer:
        self.watcher.server_starts(scheduling, seed)
        is_tiered = scheduling == TIERED
        options = EngineOptions(
            model=model,
            kv_tokens=self.kv_tokens,
            max_model_len=self.plan.max_model_len,
            config=self._tiers(seed) if is_tiered else HoldfastConfig(),
        )
        policy: ServedPolicy = "vllm-default" if scheduling == "vllm-default" else "holdfast"
        log_path = self.directory / f"{scheduling}-{seed}{start}.log"
        return EngineServer(policy, options, log_path)

    def _run(
        self,
        results: list[RunResult],
        server: EngineServer,
        scheduling: Scheduling,
        seed: int,
        point: DemoPoint,
        sessions: Sequence[Session],
    ) -> None:
        num_turns = sum(len(session.turns) for session in sessions)
        self.watcher.run_starts(scheduling, seed, point, num_turns)
        result = self._replay(server, scheduling, seed, point, sessions)
        results.append(result)
        self.watcher.run_ends(result)
        server.check_running()

    def _replay(
        self,
        server: EngineServer,
        scheduling: Scheduling,
        seed: int,
        point: DemoPoint,
        sessions: Sequence[Session],
    ) -> RunResult:
        plan = self.plan
        target = ReplayTarget(
            url=server.url,
            model=str(server.options.model),
            policy=scheduling,
            alphabet=Alphabet.for_vocabulary(VOCAB_SIZE),
        )
        load = SendOptions(
            concurrency=point.concurrency,
            time_scale=plan.time_scale,
            token_scale=plan.token_scale,
        )
        replay = asyncio.run(
            replay_sessions(target, sessions, load, seed=seed, on_turn=self.watcher.turn_ends)
        )
        if self.records is not None:
            name = f"{scheduling}-c{point.concurrency}-s{seed}.jsonl"
            append_turns(self.records / name, scheduling, replay.records.turns)
        # The planned size: the engine counts its padding too, and nothing once it has died.
        return msgspec.structs.replace(replay.result, kv_tokens=self.kv_tokens)


def sessions_for(
    plan: DemoPlan, seed: int, on_file: Callable[[FileReport], None] | None = None
) -> tuple[Session, ...]:
    """The sessions of one seed, each with two turns or more; equal for all servers.

    Raises:
        ConfigError: No session fits the plan.
        TraceError: The traces cannot be read.
    """
    selection = SessionSelection(
        num_sessions=max(point.num_sessions for point in plan.points),
        gap_cap_s=plan.gap_cap_s,
        max_model_len=plan.max_model_len,
        token_scale=plan.token_scale,
        max_turns=plan.max_turns + 1,
    )
    source: Iterator[Session]
    if plan.traces is None:
        # Generation has no end; a plan that few sessions fit must fail instead.
        source = islice(iterate_sessions(seed), _MAX_GENERATED)
    else:
        source = read_sessions(plan.traces, seed=seed, on_file=on_file)
    return selection.select(one for one in source if len(one.turns) > 1).sessions


def kv_tokens_for(plan: DemoPlan, sessions: Sequence[Sequence[Session]]) -> int:
    """A quarter of the tokens of the last point's live sessions; pure.

    It is large enough for the first point's live sessions and for the longest request.

    Args:
        plan: The runs.
        sessions: The sessions of each seed.
    """
    needs = [
        [_needed_tokens(plan, of_seed[: point.concurrency]) for of_seed in sessions]
        for point in (plan.points[0], plan.points[-1])
    ]
    past_cliff = sum(needs[-1]) // len(needs[-1]) // _CLIFF_RATIO
    return max(past_cliff, *needs[0], plan.max_model_len)


def _needed_tokens(plan: DemoPlan, sessions: Sequence[Session]) -> int:
    total = 0
    for session in sessions:
        scale = TokenScale.from_factor(
            plan.token_scale, trace_block_tokens=session.block_size_tokens
        )
        total += scale.peak_tokens(session)
    return total


def _but_last_turns(sessions: Sequence[Session]) -> tuple[Session, ...]:
    return tuple(replace(one, turns=one.turns[:-1]) for one in sessions)


def _last_turns(sessions: Sequence[Session]) -> tuple[Session, ...]:
    """The last turns, each as a session of its own."""
    return tuple(replace(one, turns=(replace(one.turns[-1], gap_s=0.0),)) for one in sessions)
