"""Stock vLLM against Holdfast: the same sessions, the same tiny model, below and past the cliff.

One server a policy and seed. The points of a seed run on it one after the other, with the prefix
cache emptied in between. What Holdfast has learned about tools at one point is therefore still
known at the next, as it would be in service; nothing is carried from seed to seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from holdfast.bench.load import LoadOptions
from holdfast.bench.model import VOCAB_SIZE, build_tiny_model
from holdfast.bench.prompts import Alphabet
from holdfast.bench.replay import ReplayTarget, replay_sessions
from holdfast.bench.server import EngineOptions, EngineServer, ServedPolicy
from holdfast.bench.turn_records import append_turns
from holdfast.core.results import RunResult, TurnRecord
from holdfast.traces.digest import sessions_digest
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session
from holdfast.traces.selection import SessionSelection
from holdfast.traces.synthetic import iterate_sessions

__all__ = ["POLICY_PAIR", "Demo", "DemoPlan", "DemoPoint", "DemoWatcher", "sessions_for"]

POLICY_PAIR: Final[tuple[ServedPolicy, ServedPolicy]] = ("vllm-default", "holdfast")

_MAX_GENERATED = 2000


@dataclass(frozen=True, slots=True)
class DemoPoint:
    """One load.

    Attributes:
        concurrency: Sessions live at once.
        num_sessions: Sessions in all: the first so many of the seed's.
    """

    concurrency: int
    num_sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What is measured.

    Attributes:
        traces: File or directory of sessions; None generates them.
        points: One run for each; first below the cliff, then past it.
        seeds: One comparison for each. The order of the policies is swapped at every second one.
        kv_tokens: Size of the KV cache.
        max_model_len: Leaves out sessions that outgrow it, in replayed tokens.
        token_scale: Replayed tokens per recorded token.
        time_scale: Replayed seconds per recorded second of a gap.
        gap_cap_s: Longest gap, in recorded seconds.
    """

    traces: Path | None
    points: tuple[DemoPoint, ...]
    seeds: tuple[int, ...]
    kv_tokens: int
    max_model_len: int
    token_scale: float
    time_scale: float
    gap_cap_s: float


class DemoWatcher:
    """Told what happens; this one does not care."""

    def server_starts(self, policy: ServedPolicy, seed: int) -> None:
        """A server is being started."""

    def run_starts(self, policy: ServedPolicy, seed: int, point: DemoPoint, num_turns: int) -> None:
        """A run of `num_turns` turns begins."""

    def turn_ends(self, record: TurnRecord) -> None:
        """A turn of the run has ended."""

    def run_ends(self, result: RunResult) -> None:
        """A run is over; its result is also in `Demo.runs`."""


@dataclass(slots=True)
class Demo:
    """One demonstration; `runs` and `digests` are valid at any time, also after an interruption.

    Attributes:
        plan: What is measured.
        directory: Holds the model and the servers' logs.
        runs: Finished runs, in the order in which they ran.
        digests: SHA-256 by name of each trace file that was read, and of each seed's sessions.
        records: Directory for the turns of each run, as JSON lines; None writes none.
    """

    plan: DemoPlan
    directory: Path
    watcher: DemoWatcher = field(default_factory=DemoWatcher)
    runs: list[RunResult] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    records: Path | None = None

    def run(self) -> None:
        """Measure everything; servers are ended however this returns.

        Raises:
            ConfigError: No session fits the plan.
            TraceError: The traces cannot be read.
            EngineError: A server does not start, or dies.
        """
        model = build_tiny_model(self.directory / "model")
        for index, seed in enumerate(self.plan.seeds):
            sessions = sessions_for(self.plan, seed, self._note_digest)
            self.digests[f"sessions-{seed}"] = sessions_digest(sessions)
            for policy in POLICY_PAIR if index % 2 == 0 else POLICY_PAIR[::-1]:
                self._measure(policy, seed, sessions, model)

    def _note_digest(self, report: FileReport) -> None:
        self.digests[report.path.name] = report.sha256

    def _measure(
        self, policy: ServedPolicy, seed: int, sessions: Sequence[Session], model: Path
    ) -> None:
        plan = self.plan
        options = EngineOptions(
            model=model, kv_tokens=plan.kv_tokens, max_model_len=plan.max_model_len
        )
        self.watcher.server_starts(policy, seed)
        log_path = self.directory / f"{policy}-{seed}.log"
        with EngineServer(policy, options, log_path) as server:
            for point in plan.points:
                server.reset_prefix_cache()
                chosen = sessions[: point.num_sessions]
                num_turns = sum(len(session.turns) for session in chosen)
                self.watcher.run_starts(policy, seed, point, num_turns)
                result = self._replay(server, seed, point, chosen)
                self.runs.append(result)
                self.watcher.run_ends(result)
                server.check_running()

    def _replay(
        self, server: EngineServer, seed: int, point: DemoPoint, sessions: Sequence[Session]
    ) -> RunResult:
        plan = self.plan
        target = ReplayTarget(
            url=server.url,
            model=str(server.options.model),
            policy=server.policy,
            alphabet=Alphabet.for_vocabulary(VOCAB_SIZE),
        )
        load = LoadOptions(
            concurrency=point.concurrency,
            time_scale=plan.time_scale,
            token_scale=plan.token_scale,
        )
        replay = asyncio.run(
            replay_sessions(target, sessions, load, seed=seed, on_turn=self.watcher.turn_ends)
        )
        if self.records is not None:
            name = f"{replay.result.policy}-c{point.concurrency}-s{seed}.jsonl"
            append_turns(self.records / name, replay.result.policy, replay.records.turns)
        # As planned, not as the engine counts it: with its own padding, or not at all once it died.
        return msgspec.structs.replace(replay.result, kv_tokens=plan.kv_tokens)


def sessions_for(
    plan: DemoPlan, seed: int, on_file: Callable[[FileReport], None] | None = None
) -> tuple[Session, ...]:
    """The sessions of one seed, the same for both policies.

    Raises:
        ConfigError: None fits the plan.
        TraceError: The traces cannot be read.
    """
    selection = SessionSelection(
        num_sessions=max(point.num_sessions for point in plan.points),
        gap_cap_s=plan.gap_cap_s,
        max_model_len=plan.max_model_len,
        token_scale=plan.token_scale,
    )
    source: Iterator[Session]
    if plan.traces is None:
        # Generated sessions have no end; a plan that few of them fit should say so instead.
        source = islice(iterate_sessions(seed), _MAX_GENERATED)
    else:
        source = read_sessions(plan.traces, seed=seed, on_file=on_file)
    return selection.select(source).sessions
