"""Runs sessions on an engine whose steps take the times of a cost profile."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.core.results import SessionRecord, TurnRecord
from holdfast.errors import ConfigError, HoldfastError
from holdfast.sim.blocks import BlockGrid
from holdfast.sim.clock import VirtualClock
from holdfast.sim.engine import SimEngine, SimOutcome, SimRequest, SimStep
from holdfast.sim.oracle import request_id
from holdfast.traces.new_tokens import NewTokens, kept_blocks
from holdfast.traces.record import Session
from holdfast.traces.turn_end_hint import turn_end_hint

__all__ = ["Simulation", "SimulationOptions", "SimulationRecords", "StepCost"]

_MAX_IDLE_STEPS = 100_000
_MOST_REPEATS = 256


class StepCost(Protocol):
    """Costs of engine steps.

    Attributes:
        request_overhead_s: Time of a request before it reaches the engine (s).
    """

    @property
    def request_overhead_s(self) -> float:
        """Time of a request before it reaches the engine (s)."""

    def step_time_s(self, work: Sequence[tuple[int, int]]) -> float:
        """Time of a step (s), given each request's new tokens and tokens of context. Pure."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """Load and scaling options of a simulation.

    Attributes:
        concurrency: Live sessions, >= 1: when one ends, the next starts. None starts each at its
            arrival, relative to the first one.
        time_scale: Simulated seconds per recorded second of a gap, >= 0.
        token_scale: Simulated tokens per recorded token.
        session_ids: Whether requests carry their session id.
        turn_ends: Whether requests carry the hint of their turn's end, which the engine uses only
            after that end.
    """

    concurrency: int | None
    time_scale: float = 1.0
    token_scale: float = 1.0
    session_ids: bool = False
    turn_ends: bool = True

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency!r}; expected at least 1")
        if not 0 <= self.time_scale < float("inf"):
            raise ConfigError(f"time-scale is {self.time_scale!r}; expected a number >= 0")


@dataclass(slots=True)
class SimulationRecords:
    """Records of a run; times are simulated seconds since the start.

    Attributes:
        turns: Turns, in the order of their ends.
        sessions: Sessions, in the order of their ends.
        makespan_s: Time from the start to the last event.
    """

    turns: list[TurnRecord] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    makespan_s: float = 0.0


@dataclass(slots=True)
class _OpenTurn:
    """A turn between its request and the end of its answer."""

    session_index: int
    turn_index: int
    sent_s: float
    first_seen_tokens: int
    cached_tokens: int = 0
    first_token_s: float | None = None


class Simulation:
    """Runs all sessions on one engine; call `run` once.

    Args:
        engine: A new engine that reads `clock`.
        cost: Costs of its steps.
        sessions: Sessions in start order.
        options: Load and scaling options.
        engine_block_tokens: Tokens in a block of the engine.
        clock: Advanced by the run.
        on_turn: Called for each turn at its end.

    Raises:
        ConfigError: The options do not fit the sessions.
    """

    def __init__(
        self,
        engine: SimEngine,
        cost: StepCost,
        sessions: Sequence[Session],
        options: SimulationOptions,
        *,
        engine_block_tokens: int,
        clock: VirtualClock,
        on_turn: Callable[[TurnRecord], None] | None = None,
    ) -> None:
        self.records = SimulationRecords()
        self._engine = engine
        self._cost = cost
        self._sessions = sessions
        self._options = options
        self._grids = [
            BlockGrid.of(session, options.token_scale, engine_block_tokens) for session in sessions
        ]
        self._clock = clock
        self._on_turn = on_turn
        self._new_tokens = NewTokens()
        self._due: list[tuple[float, int, int, int]] = []  # time, tie, session, turn
        self._num_due = 0
        self._open: dict[str, _OpenTurn] = {}
        self._started_s: dict[int, float] = {}
        self._unstarted: Iterator[int] = iter(())
        self._step_s = cost.step_time_s(())
        self._began_s = clock.now_s

    def run(self) -> SimulationRecords:
        """Run all sessions to their end. Mutates engine and clock.

        Raises:
            HoldfastError: The engine has requests and does not run them.
        """
        self._enter()
        num_idle_steps = 0
        while self._due or self._open:
            self._send_due()
            step = self._engine.plan_step(self._num_steps_to_next())
            self._pass_time(step)
            outcome = self._engine.end_step()
            self._account(step, outcome)
            if not step.is_empty or outcome.finished:
                num_idle_steps = 0
                continue
            num_idle_steps += 1
            if num_idle_steps > _MAX_IDLE_STEPS:
                raise HoldfastError(
                    f"the engine holds {len(self._open)} requests and runs none of them",
                    hint="check whether a prompt is longer than the cache",
                )
            self._wait()
        self.records.makespan_s = self._clock.now_s - self._began_s
        return self.records

    def _enter(self) -> None:
        if self._options.concurrency is None:
            arrivals_s = [session.start_s or 0.0 for session in self._sessions]
            first_s = min(arrivals_s, default=0.0)
            for index, start_s in enumerate(arrivals_s):
                after_s = (start_s - first_s) * self._options.time_scale
                self._schedule(self._began_s + after_s, index, 0)
            return
        self._unstarted = iter(range(len(self._sessions)))
        for _ in range(self._options.concurrency):
            self._start_next()

    def _start_next(self) -> None:
        index = next(self._unstarted, None)
        if index is not None:
            self._schedule(self._clock.now_s, index, 0)

    def _schedule(self, time_s: float, session_index: int, turn_index: int) -> None:
        """Schedule a turn's request that is sent at `time_s`."""
        arrival_s = time_s + self._cost.request_overhead_s
        heapq.heappush(self._due, (arrival_s, self._num_due, session_index, turn_index))
        self._num_due += 1

    def _send_due(self) -> None:
        overhead_s = self._cost.request_overhead_s
        while self._due and self._due[0][0] <= self._clock.now_s:
            time_s, _, session_index, turn_index = heapq.heappop(self._due)
            self._send(time_s - overhead_s, session_index, turn_index)

    def _send(self, time_s: float, session_index: int, turn_index: int) -> None:
        session, grid = self._sessions[session_index], self._grids[session_index]
        turn = session.turns[turn_index]
        options = self._options
        turn_end = turn_end_hint(turn) if options.turn_ends else None
        prompt_tokens = grid.scale.prompt_tokens(turn)
        sent_blocks = self._new_tokens.note_sent(session, turn_index)
        request = SimRequest(
            request_id=request_id(session_index, turn_index),
            block_keys=grid.keys(turn),
            prompt_tokens=prompt_tokens,
            output_tokens=grid.scale.output_tokens(turn),
            hints={} if turn_end is None else {"holdfast_turn_end": turn_end},
            session_id=session.session_id if options.session_ids else None,
        )
        self._started_s.setdefault(session_index, time_s)
        self._open[request.request_id] = _OpenTurn(
            session_index,
            turn_index,
            time_s,
            prompt_tokens - sent_blocks * grid.scale.block_tokens,
        )
        self._engine.submit(request)

    def _pass_time(self, step: SimStep) -> None:
        if step.stall_s:
            self._clock.advance(step.stall_s)
        if step.is_empty:
            return
        cost = self._cost
        self._step_s = cost.step_time_s([*step.work, *step.decodes])
        self._clock.advance(self._step_s)
        if step.repeats > 1:
            self._step_s = cost.step_time_s(step.decodes)
            self._clock.advance(self._step_s * (step.repeats - 1))

    def _account(self, step: SimStep, outcome: SimOutcome) -> None:
        now_s = self._clock.now_s
        for number, cached_tokens in step.cached_tokens.items():
            self._open[number].cached_tokens = cached_tokens
        for number in outcome.started:
            if self._open[number].first_token_s is None:
                self._open[number].first_token_s = now_s
        for number in outcome.finished:
            self._end_turn(self._open.pop(number))

    def _end_turn(self, sent: _OpenTurn) -> None:
        now_s = self._clock.now_s
        session, grid = self._sessions[sent.session_index], self._grids[sent.session_index]
        turn = session.turns[sent.turn_index]
        prompt_tokens = grid.scale.prompt_tokens(turn)
        kept_tokens = kept_blocks(session, sent.turn_index) * grid.scale.block_tokens
        record = TurnRecord(
            session_id=session.session_id,
            turn_index=sent.turn_index,
            sent_s=sent.sent_s,
            first_token_s=sent.first_token_s,
            last_token_s=now_s,
            prompt_tokens=prompt_tokens,
            appended_tokens=prompt_tokens - kept_tokens,
            first_seen_tokens=sent.first_seen_tokens,
            output_tokens=grid.scale.output_tokens(turn),
            cached_tokens=sent.cached_tokens,
        )
        self.records.turns.append(record)
        if self._on_turn is not None:
            self._on_turn(record)
        following = sent.turn_index + 1
        if following < len(session.turns):
            gap_s = session.turns[following].gap_s * self._options.time_scale
            self._schedule(now_s + gap_s, sent.session_index, following)
            return
        self.records.sessions.append(
            SessionRecord(session.session_id, self._started_s[sent.session_index], now_s, True)
        )
        self._start_next()

    def _num_steps_to_next(self) -> int:
        """Number of steps, each as long as the last one, that end before the next request."""
        if not self._due:
            return _MOST_REPEATS
        return min(int((self._due[0][0] - self._clock.now_s) / self._step_s), _MOST_REPEATS)

    def _wait(self) -> None:
        """Advance the clock to the next request, or by an empty step."""
        if self._due and not self._open:
            self._clock.advance_to(self._due[0][0])
            return
        self._clock.advance(self._cost.step_time_s(()))
