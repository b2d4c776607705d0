"""Engines that run side by side on one virtual clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from holdfast.core.commands import Command
from holdfast.core.results import Counters
from holdfast.errors import ConfigError, HoldfastError
from holdfast.sim.clock import VirtualClock
from holdfast.sim.engine import SimEngine, SimOutcome, SimRequest, SimStep

__all__ = ["EndedStep", "Fleet", "FleetPlan", "Router", "StepCost"]

_MAX_IDLE_STEPS = 100_000
_MOST_REPEATS = 256
_LATE_S = 0.25  # how late an engine may see a request that another engine's step brings about


class StepCost(Protocol):
    """Costs of engine steps and requests."""

    def request_overhead_for_s(self, prompt_tokens: int) -> float:
        """Time of a request before it reaches the engine (s). Pure."""

    def step_time_s(self, work: Sequence[tuple[int, int]]) -> float:
        """Time of a step (s), given each request's new tokens and tokens of context. Pure."""

    def covers(self, work: Sequence[tuple[int, int]]) -> bool:
        """Whether the costs were fitted to steps as large as this one. Pure."""


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The engines of a run.

    Attributes:
        num_engines: Equal engines (count, >= 1).
        router: Who divides requests among them; `holdfast`, or a routing policy with its
            settings. None with one engine.
        speeds: Speed of the first engines relative to the profile's (> 0); all others have 1.
        dies_at_s: When the first engine dies, from the first request on (s); None for never.
    """

    num_engines: int = 1
    router: str | None = None
    speeds: tuple[float, ...] = ()
    dies_at_s: float | None = None

    def __post_init__(self) -> None:
        if len(self.speeds) > self.num_engines:
            raise ConfigError(
                f"engine-speed has {len(self.speeds)} values for {self.num_engines} engines"
            )
        if any(not 0.0 < speed < math.inf for speed in self.speeds):
            raise ConfigError("engine-speed: expected numbers > 0")
        if self.dies_at_s is not None and self.num_engines < 2:
            raise ConfigError("engine-dies-at needs another engine", hint="give --engines 2")

    def __str__(self) -> str:
        """The engines and the router, for titles; "" for one engine without a router."""
        if self.router is None:
            return ""
        slow = f" at speeds {', '.join(f'{s:g}' for s in self.speeds)}" if self.speeds else ""
        dies = "" if self.dies_at_s is None else f", one dies at {self.dies_at_s:g} s"
        return f"{self.num_engines} engines{slow}{dies}, {self.router}"


class Router(Protocol):
    """Divides requests among engines; told and asked in order of time.

    It has a request from `arrived` until `take` gives it to an engine. One that is lost with its
    engine arrives again.
    """

    @property
    def next_s(self) -> float:
        """When `take` may give more without an event before (s); inf if it will not. Pure."""

    def arrived(self, request: SimRequest, now_s: float) -> None:
        """Take in a request. Mutates."""

    def take(self, now_s: float) -> Sequence[tuple[SimRequest, int]]:
        """Give out requests that go to an engine now, with its number. Mutates."""

    def started(self, request_id: str, now_s: float) -> None:
        """Take in that an engine has given a request's first token. Mutates."""

    def ended(self, request_id: str, now_s: float) -> None:
        """Take in that an engine has answered a request. Mutates."""

    def lost(self, engine: int, now_s: float) -> None:
        """Take in that an engine is dead. Mutates."""


class EndedStep(NamedTuple):
    """A step that has ended, or the death of an engine.

    Attributes:
        step: What was planned.
        outcome: What followed.
        took_s: Its duration without stalls (s).
        is_covered: Whether the costs were fitted to steps as large.
    """

    step: SimStep
    outcome: SimOutcome
    took_s: float = 0.0
    is_covered: bool = True


@dataclass(slots=True, eq=False)
class _Server:
    """One engine and what it does.

    Attributes:
        engine: The engine.
        number: Its number.
        speed: Relative to the cost profile's.
        step_s: Length of its last step (s).
        until_s: When its step ends, or when it looks for work again (s); inf while it has none.
        planned: The step that runs.
        inbox: Requests that it takes in before its next step.
        open: Requests that it has not answered, by id.
        num_idle_steps: Empty steps in a row (count).
    """

    engine: SimEngine
    number: int
    speed: float
    step_s: float
    until_s: float = 0.0
    planned: EndedStep | None = None
    inbox: list[SimRequest] = field(default_factory=list)
    open: dict[str, SimRequest] = field(default_factory=dict)
    num_idle_steps: int = 0

    def submit(self, request: SimRequest, now_s: float) -> None:
        """Take in a request, before the next step. Mutates."""
        self.open[request.request_id] = request
        self.inbox.append(request)
        self.until_s = min(self.until_s, now_s) if self.until_s == math.inf else self.until_s

    def begin(self, cost: StepCost, now_s: float, within_s: float) -> None:
        """Plan a step, of several that end within a time if they only decode. Mutates."""
        for request in self.inbox:
            self.engine.submit(request)
        self.inbox.clear()
        most = _MOST_REPEATS
        if within_s < math.inf:
            most = min(int(within_s / self.step_s), _MOST_REPEATS)
        step = self.engine.plan_step(most)
        self.until_s = now_s + step.stall_s if step.stall_s else now_s
        took_s, is_covered = 0.0, True
        if not step.is_empty:
            work = [*step.work, *step.decodes]
            took_s = self.step_s = cost.step_time_s(work) / self.speed
            self.until_s += took_s
            if step.repeats > 1:
                self.step_s = cost.step_time_s(step.decodes) / self.speed
                self.until_s += self.step_s * (step.repeats - 1)
                took_s += self.step_s * (step.repeats - 1)
            is_covered = cost.covers(work)
        self.planned = EndedStep(step, SimOutcome([], []), took_s, is_covered)

    def end(self, cost: StepCost, now_s: float) -> EndedStep:
        """End the step that runs. Mutates.

        Raises:
            HoldfastError: The engine has requests and does not run them.
        """
        assert self.planned is not None
        ended = self.planned._replace(outcome=self.engine.end_step())
        self.planned = None
        for name in ended.outcome.finished:
            del self.open[name]
        if not ended.step.is_empty or ended.outcome.finished:
            self.num_idle_steps = 0
            return ended
        self.num_idle_steps += 1
        if self.num_idle_steps > _MAX_IDLE_STEPS:
            raise HoldfastError(
                f"the engine holds {len(self.open)} requests and runs none of them",
                hint="check whether a prompt is longer than the cache",
            )
        self.until_s = now_s + cost.step_time_s(()) if self.open else math.inf
        return ended


class Fleet:
    """Engines on one clock. Each takes its own steps; a router gives them requests.

    An engine sees a request at the end of its step, as a real one does. Several decode steps are
    taken together as long as no event is due; what another engine's step brings about meanwhile
    waits for the end of them, 0.25 s at most.

    Args:
        engines: Engines that read `clock`; the number of each is its place.
        cost: Costs of their steps.
        clock: Advanced by the fleet.
        router: Divides the requests; None gives them all to the only engine.
        speeds: As in `FleetPlan`.
        dies_at_s: When the first engine dies (s, on the clock).

    Attributes:
        cost: See the argument.
        clock: See the argument.
    """

    def __init__(
        self,
        engines: Sequence[SimEngine],
        cost: StepCost,
        clock: VirtualClock,
        router: Router | None = None,
        *,
        speeds: Sequence[float] = (),
        dies_at_s: float = math.inf,
    ) -> None:
        self.cost = cost
        self.clock = clock
        self._router = router or _OnlyEngine()
        self._dies_at_s = dies_at_s
        self._num_held = 0
        self._engines = engines
        step_s = cost.step_time_s(())
        all_speeds = [*speeds, *([1.0] * (len(engines) - len(speeds)))]
        self._servers = [
            _Server(engine, number, speed, step_s / speed)
            for number, (engine, speed) in enumerate(zip(engines, all_speeds, strict=True))
        ]

    @property
    def is_idle(self) -> bool:
        """Whether no engine has anything to do and no request waits. Pure."""
        return not self._num_held and all(s.until_s == math.inf for s in self._servers)

    def command(self, command: Command) -> None:
        """Tell every engine what an application says outside of requests. Mutates."""
        for server in self._servers:
            server.engine.command(command)

    def submit(self, request: SimRequest) -> None:
        """Take in a request. Mutates."""
        self._num_held += 1
        self._router.arrived(request, self.clock.now_s)

    def counters(self) -> Counters:
        """Counters of all engines together. Pure."""
        return Counters.sum_of([engine.counters() for engine in self._engines])

    def advance(self, next_arrival_s: float, within_s: float) -> Iterator[EndedStep]:
        """Advance the clock to the next event, and yield what ends there. Mutates.

        Args:
            next_arrival_s: When the next request comes (s, on the clock).
            within_s: Time up to which steps may be taken together (s from now).

        Raises:
            HoldfastError: Requests wait, and nothing will start them.
        """
        now_s = self.clock.now_s
        self._hand_out(now_s)
        for server in self._servers:
            if server.planned is None and server.until_s <= now_s:
                server.begin(self.cost, now_s, min(within_s, self._undisturbed_s(server)))
        next_s = min((server.until_s for server in self._servers), default=math.inf)
        if any(server.until_s == math.inf for server in self._servers) or self._num_held:
            next_s = min(next_s, next_arrival_s, self._router.next_s)
        next_s = min(next_s, self._dies_at_s)
        if next_s == math.inf and self._num_held:
            raise HoldfastError(f"the router holds {self._num_held} requests and starts none")
        if next_s < math.inf:
            self.clock.advance_to(next_s)
        yield from self._end_steps()

    def _end_steps(self) -> Iterator[EndedStep]:
        now_s = self.clock.now_s
        if now_s >= self._dies_at_s:
            yield self._bury(self._servers[0], now_s)
        for server in self._servers:
            if server.planned is None or server.until_s > now_s:
                continue
            ended = server.end(self.cost, now_s)
            for name in ended.outcome.started:
                self._router.started(name, now_s)
            for name in ended.outcome.finished:
                self._router.ended(name, now_s)
            yield ended

    def _hand_out(self, now_s: float) -> None:
        by_number = {server.number: server for server in self._servers}
        for request, number in self._router.take(now_s) if self._num_held else ():
            self._num_held -= 1
            by_number[number].submit(request, now_s)

    def _bury(self, dead: _Server, now_s: float) -> EndedStep:
        """Take an engine out; its requests arrive again."""
        self._dies_at_s = math.inf
        self._servers.remove(dead)
        self._router.lost(dead.number, now_s)
        for request in dead.open.values():
            self.submit(request)
        return EndedStep(SimStep([], [], 1, {}), SimOutcome([], [], lost=list(dead.open)))

    def _undisturbed_s(self, server: _Server) -> float:
        """Time in which no other engine's step can bring about a request here (s)."""
        others = [other.until_s for other in self._servers if other is not server]
        next_s = min(min(others, default=math.inf) + _LATE_S, self._router.next_s, self._dies_at_s)
        return max(next_s - self.clock.now_s, 0.0)


class _OnlyEngine:
    """Gives every request to the first engine at once."""

    next_s = math.inf

    def __init__(self) -> None:
        self._requests: list[tuple[SimRequest, int]] = []

    def arrived(self, request: SimRequest, now_s: float) -> None:
        self._requests.append((request, 0))

    def take(self, now_s: float) -> Sequence[tuple[SimRequest, int]]:
        taken, self._requests = self._requests, []
        return taken

    def started(self, request_id: str, now_s: float) -> None:
        pass

    def ended(self, request_id: str, now_s: float) -> None:
        pass

    def lost(self, engine: int, now_s: float) -> None:
        pass
