"""When each turn of a simulated run is sent."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from holdfast.sim.agent_trees import AgentTrees
from holdfast.sim.load import SimulationOptions
from holdfast.sim.replays import Replays

__all__ = ["Arrivals", "Due"]


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A request that is to be sent.

    Attributes:
        arrival_s: When it reaches the engine (s).
        order: Breaks ties: sent earlier, or scheduled earlier.
        sent_s: When it is sent (s).
        number: The replay.
        turn_index: The turn.
        is_warm_up: Whether it is sent before time 0.
    """

    arrival_s: float
    order: int
    sent_s: float = field(compare=False)
    number: int = field(compare=False)
    turn_index: int = field(compare=False)
    is_warm_up: bool = field(compare=False, default=False)


@dataclass(slots=True)
class _Wait:
    """A turn that waits for sub-agents.

    Attributes:
        earliest_s: When it would be sent without them (s).
        residual_s: For each sub-agent it waits for, the time from that one's end to it (s).
    """

    earliest_s: float
    residual_s: dict[int, float]


class Arrivals:
    """Schedules sessions, in a closed or an open loop, and their turns.

    Args:
        replays: The sessions.
        trees: Their agent trees; None where sub-agents are sessions like any other.
        options: The load.
        overhead_s: Time from sending a prompt of so many tokens to its arrival in the engine (s).
        seed: Decides where sessions that start in mid-session begin.

    Attributes:
        began_s: Time 0 of the run (s, host's clock); inf while warm-up turns run.
        live: Replays that have begun and not ended.
    """

    def __init__(
        self,
        replays: Replays,
        trees: AgentTrees | None,
        options: SimulationOptions,
        overhead_s: Callable[[int], float],
        seed: int,
    ) -> None:
        self.began_s = math.inf
        self.live: set[int] = set()
        self._replays = replays
        self._trees = trees
        self._options = options
        self._overhead_s = overhead_s
        self._random = random.Random(seed)
        self._due: list[Due] = []
        self._num_due = 0
        self._unstarted: Iterator[int] = iter(())
        self._first_turns: dict[int, int] = {}
        self._num_firsts = 0
        self._num_live_of: dict[int, int] = {}  # by root
        self._waits: dict[tuple[int, int], _Wait] = {}
        self._waiting_for: dict[int, tuple[int, int]] = {}
        self._ended_s: dict[int, float] = {}
        self._warm_until: dict[int, int] = {}
        self._parked: list[int] = []

    @property
    def next_s(self) -> float:
        """When the next request reaches the engine (s, host's clock); inf if none is due."""
        return self._due[0].arrival_s if self._due else math.inf

    def begin(self, now_s: float) -> None:
        """Start the first sessions. Mutates."""
        if self._options.concurrency is None:
            self._open_loop(now_s)
            return
        self._unstarted = self._roots()
        firsts = list(itertools.islice(self._unstarted, self._options.concurrency))
        self._num_firsts = len(firsts)
        if self._options.num_warm_up_turns:
            for number in firsts:
                self._warm_up(number, now_s)
        else:
            self.began_s = now_s
            for number in firsts:
                self._start(number, self._middle(number), now_s)

    def pop_due(self, now_s: float) -> Iterator[Due]:
        """Yield the requests that reach the engine by now. Mutates."""
        while self._due and self._due[0].arrival_s <= now_s:
            yield heapq.heappop(self._due)

    def cut_idle(self, now_s: float) -> None:
        """Bring requests forward if the next is further away than the cap. Mutates."""
        cap_s = self._options.idle_cap_s
        if cap_s is None or not now_s + cap_s < self.next_s < math.inf:
            return
        early_s = self.next_s - now_s - cap_s
        self._due = [
            Due(d.arrival_s - early_s, d.order, d.sent_s - early_s, d.number, d.turn_index)
            for d in self._due
        ]

    def turn_ended(self, number: int, turn_index: int, now_s: float) -> bool:
        """Schedule what follows the end of a turn; true if its session ends. Mutates."""
        following = turn_index + 1
        if number in self._warm_until:
            self._go_on_warming(number, following, now_s)
            return False
        if self._trees is not None:
            self._call(number, turn_index, now_s)
        if following < len(self._replays.session(number).turns):
            self._follow(number, following, now_s)
            return False
        self._end(number, now_s)
        return True

    def is_whole(self, number: int) -> bool:
        """Whether a replay began with its session's first turn. Pure."""
        return self._first_turns[number] == 0

    def parent_of(self, number: int) -> int | None:
        """The replay that started a sub-agent; None for a root, or without trees. Pure."""
        if self._trees is None:
            return None
        parent = self._trees.parent_of(self._index(number))
        return None if parent is None else self._child(number, parent)

    # Starts.

    def _roots(self) -> Iterator[int]:
        """Numbers of replays that start by themselves; endless where a window ends them."""
        num_sessions = len(self._replays.sessions)
        trees = self._trees
        roots = [n for n in range(num_sessions) if trees is None or trees.is_root(n)]
        for replayed in itertools.count() if self._options.window else range(1):
            yield from (replayed * num_sessions + root for root in roots)

    def _open_loop(self, now_s: float) -> None:
        self.began_s = now_s
        arrivals_s = [session.start_s or 0.0 for session in self._replays.sessions]
        first_s = min(arrivals_s, default=0.0)
        for number, start_s in enumerate(arrivals_s):
            self._start(number, 0, now_s + (start_s - first_s) * self._options.time_scale)

    def _start(self, number: int, first_turn: int, time_s: float) -> None:
        root = self._root(number)
        self._num_live_of[root] = self._num_live_of.get(root, 0) + 1
        self._first_turns[number] = first_turn
        self.live.add(number)
        self._schedule(time_s, number, first_turn)

    def _start_next(self, now_s: float) -> None:
        number = next(self._unstarted, None)
        if number is not None:
            self._start(number, 0, now_s)

    def _middle(self, number: int) -> int:
        """The turn in which a session begins that starts in mid-session."""
        if self._options.mid_session is None:
            return 0
        turns = self._replays.session(number).turns
        ends_s = list(itertools.accumulate(turn.gap_s + (turn.latency_s or 0.0) for turn in turns))
        at_s = self._random.uniform(*self._options.mid_session) * ends_s[-1]
        return next((index for index, end_s in enumerate(ends_s) if end_s > at_s), 0)

    # Warm-up turns.

    def _warm_up(self, number: int, now_s: float) -> None:
        last = len(self._replays.session(number).turns) - 1
        first = min(self._middle(number), last)
        self._warm_until[number] = min(first + self._options.num_warm_up_turns, last)
        if self._warm_until[number] > first:
            self._schedule(now_s, number, first, is_warm_up=True)
        else:
            self._park(number, now_s)

    def _go_on_warming(self, number: int, following: int, now_s: float) -> None:
        if following < self._warm_until[number]:
            self._schedule(now_s, number, following, is_warm_up=True)
        else:
            self._park(number, now_s)

    def _park(self, number: int, now_s: float) -> None:
        """Wait for the others' warm-up turns; with the last one time 0 is reached."""
        self._parked.append(number)
        if len(self._parked) < self._num_firsts:
            return
        self.began_s = now_s
        parked, self._parked = self._parked, []
        for each in parked:
            turn_index = self._warm_until.pop(each)
            gap_s = self._gap_s(each, turn_index) if turn_index else 0.0
            self._start(each, turn_index, now_s + gap_s)

    # Turns.

    def _follow(self, number: int, turn_index: int, now_s: float) -> None:
        """Schedule a session's next turn, or let it wait for sub-agents."""
        joins = [] if self._trees is None else self._trees.joins(self._index(number), turn_index)
        gap_s = self._gap_s(number, turn_index)
        if any(join.fills_gap and self._took_part(number, join.child) for join in joins):
            gap_s = 0.0
        earliest_s = now_s + gap_s
        running: dict[int, float] = {}
        for join in joins:
            child = self._child(number, join.child)
            residual_s = join.residual_s * self._options.time_scale if join.fills_gap else 0.0
            if child in self._ended_s:
                earliest_s = max(earliest_s, self._ended_s[child] + residual_s)
            elif child in self.live:
                running[child] = residual_s
        if not running:
            self._schedule(earliest_s, number, turn_index)
            return
        self._waits[number, turn_index] = _Wait(earliest_s, running)
        self._waiting_for.update(dict.fromkeys(running, (number, turn_index)))

    def _call(self, number: int, turn_index: int, now_s: float) -> None:
        """Start the sub-agents that a turn calls."""
        assert self._trees is not None
        for index in self._trees.called_by(self._index(number), turn_index):
            delay_s = self._trees.delay_s(index) * self._options.time_scale
            self._start(self._child(number, index), 0, now_s + delay_s)

    def _end(self, number: int, now_s: float) -> None:
        self.live.discard(number)
        self._ended_s[number] = now_s
        self._let_go(number, now_s)
        root = self._root(number)
        self._num_live_of[root] -= 1
        if not self._num_live_of[root]:
            del self._num_live_of[root]
            self._start_next(now_s)

    def _let_go(self, child: int, now_s: float) -> None:
        """Schedule the turn that waited for a sub-agent, unless it waits for others."""
        place = self._waiting_for.pop(child, None)
        if place is None:
            return
        wait = self._waits[place]
        wait.earliest_s = max(wait.earliest_s, now_s + wait.residual_s.pop(child))
        if not wait.residual_s:
            del self._waits[place]
            self._schedule(wait.earliest_s, *place)

    def _schedule(
        self, time_s: float, number: int, turn_index: int, *, is_warm_up: bool = False
    ) -> None:
        """Schedule a turn's request that is sent at `time_s`."""
        arrival_s = time_s + self._overhead_s(self._replays.prompt_tokens(number, turn_index))
        due = Due(arrival_s, self._num_due, time_s, number, turn_index, is_warm_up)
        heapq.heappush(self._due, due)
        self._num_due += 1

    def _gap_s(self, number: int, turn_index: int) -> float:
        return self._replays.turn(number, turn_index).gap_s * self._options.time_scale

    # Numbers of a tree's replays.

    def _index(self, number: int) -> int:
        return number % len(self._replays.sessions)

    def _child(self, number: int, index: int) -> int:
        """The replay of a sub-agent in the same round as its parent's."""
        return number - self._index(number) + index

    def _root(self, number: int) -> int:
        index = self._index(number)
        return number - index + (index if self._trees is None else self._trees.roots[index])

    def _took_part(self, number: int, index: int) -> bool:
        """Whether a sub-agent has been started in this replay of its tree."""
        child = self._child(number, index)
        return child in self.live or child in self._ended_s
