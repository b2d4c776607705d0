"""An engine with simple costs, and sessions for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.core.commands import Command
from holdfast.core.results import Counters
from holdfast.sim.clock import VirtualClock
from holdfast.sim.engine import SimOutcome, SimRequest, SimStep
from holdfast.traces.record import Session, Turn

BLOCK = 4


@dataclass
class FixedCost:
    """1 s for each prompt token, 0.1 s for each decoded one."""

    overhead_s: float = 0.0

    def request_overhead_for_s(self, prompt_tokens: int) -> float:
        return self.overhead_s

    def covers(self, work: Sequence[tuple[int, int]]) -> bool:
        return True

    def step_time_s(self, work: Sequence[tuple[int, int]]) -> float:
        return sum(0.1 if n == 1 and context else float(n) for n, context in work) or 0.5


@dataclass
class OneAtATime:
    """An FCFS engine: one request at a time, one step a prompt, an infinite cache."""

    clock: VirtualClock
    submitted: list[tuple[float, SimRequest]] = field(default_factory=list)
    commands: list[tuple[int, Command]] = field(default_factory=list)
    waiting: list[SimRequest] = field(default_factory=list)
    cached: set[bytes] = field(default_factory=set)
    num_left: int = 0
    repeats: list[int] = field(default_factory=list)
    holds_all: bool = False
    finished: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def command(self, command: Command) -> None:
        self.commands.append((len(self.submitted), command))

    def submit(self, request: SimRequest) -> None:
        self.submitted.append((self.clock.now_s, request))
        self.waiting.append(request)

    def plan_step(self, most_repeats: int = 1) -> SimStep:
        if not self.waiting or self.holds_all:
            return SimStep([], [], 1, {})
        request = self.waiting[0]
        if not self.num_left:
            num_cached = sum(key in self.cached for key in request.block_keys) * BLOCK
            self.cached.update(request.block_keys)
            self.num_left = request.output_tokens - 1
            work = [(request.prompt_tokens - num_cached, num_cached)]
            found = {request.request_id: num_cached}
            self.started = [request.request_id]
            self._note_finished()
            return SimStep(work, [], 1, found)
        repeats = max(1, min(most_repeats, self.num_left))
        self.repeats.append(repeats)
        self.num_left -= repeats
        self._note_finished()
        return SimStep([], [(1, 10)], repeats, {})

    def end_step(self) -> SimOutcome:
        outcome = SimOutcome(self.started, self.finished)
        self.started, self.finished = [], []
        return outcome

    def _note_finished(self) -> None:
        self.finished = [] if self.num_left else [self.waiting.pop(0).request_id]

    def counters(self) -> Counters:
        return Counters()


def turn(gap_s: float, ids: Sequence[int], tail: int, output: int) -> Turn:
    return Turn(gap_s, len(ids) * BLOCK + tail, output, tuple(ids), ended_by="tool")


def session(name: str, *turns: Turn, start_s: float | None = None) -> Session:
    return Session(name, BLOCK, turns, "test", start_s=start_s)
