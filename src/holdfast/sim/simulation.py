"""Runs sessions on engines whose steps take the times of a cost profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from holdfast.core.commands import Command, DeclareWorkflow, EndWorkflow
from holdfast.core.results import Counters, SessionRecord, TurnRecord
from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.sim.agent_trees import AgentTrees
from holdfast.sim.arrivals import Arrivals, Due
from holdfast.sim.engine import SimRequest
from holdfast.sim.fleet import EndedStep, Fleet
from holdfast.sim.load import SimulationOptions
from holdfast.sim.replays import Replays, request_id
from holdfast.sim.tool_events import ToolEvents
from holdfast.traces.new_tokens import NewTokens, kept_blocks
from holdfast.traces.turn_end_hint import turn_end_hint

__all__ = ["Simulation", "SimulationRecords"]


@dataclass(slots=True)
class SimulationRecords:
    """Records of a run; times are simulated seconds since its time 0.

    Attributes:
        turns: Turns in the order of their ends, then those that had not ended.
        sessions: Sessions in the order of their ends, then those that had not ended.
        makespan_s: Time from 0 to the last event, or to the window's end.
        counters: The engine's counters over the part of the run that counts.
        output_tokens: Tokens of answers produced in that part, of unfinished ones too (count).
        uncovered_s: Time in that part spent in steps beyond what the costs were fitted to (s).
    """

    turns: list[TurnRecord] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    makespan_s: float = 0.0
    counters: Counters = field(default_factory=Counters)
    output_tokens: int = 0
    uncovered_s: float = 0.0


@dataclass(slots=True)
class _OpenTurn:
    """A turn between its request and the end of its answer."""

    due: Due
    first_seen_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    loaded_tokens: int | None = None
    first_token_s: float | None = None


class Simulation:
    """Runs sessions on new engines; call `run` once.

    Args:
        fleet: The engines, and the clock that the run advances.
        replays: The sessions in start order.
        options: The load.
        seed: Decides where sessions that start in mid-session begin.
        on_turn: Called for each turn at its end.
    """

    def __init__(
        self,
        fleet: Fleet,
        replays: Replays,
        options: SimulationOptions,
        *,
        seed: int = 0,
        on_turn: Callable[[TurnRecord], None] | None = None,
    ) -> None:
        self.records = SimulationRecords()
        self._fleet = fleet
        self._replays = replays
        self._options = options
        self._clock = fleet.clock
        self._on_turn = on_turn
        trees = AgentTrees(replays.sessions) if options.is_tree else None
        overhead_s = fleet.cost.request_overhead_for_s
        self._arrivals = Arrivals(replays, trees, options, overhead_s, seed)
        self._new_tokens: defaultdict[bytes, NewTokens] = defaultdict(NewTokens)
        self._open: dict[str, _OpenTurn] = {}
        self._started_s: dict[int, float] = {}
        self._declared: dict[int, int] = {}  # by replay, its first turn
        self._tools = ToolEvents(options.time_scale)
        self._before: Counters | None = None

    def run(self) -> SimulationRecords:
        """Run all sessions, or up to the window's end. Mutates engines and clock.

        Raises:
            HoldfastError: An engine has requests and does not run them.
        """
        self._arrivals.begin(self._clock.now_s)
        while not self._is_over():
            self._tell(self._tools.finished(self._clock.now_s))
            self._send_due()
            if self._fleet.is_idle:
                self._arrivals.cut_idle(self._clock.now_s)
            for ended in self._fleet.advance(self._next_s, self._undisturbed_s()):
                self._account(ended)
        return self._finish()

    def _is_over(self) -> bool:
        """Whether the run has ended; notes the counters where the part that counts begins."""
        now_s = self._now_s
        window = self._options.window
        if self._before is None and now_s >= (window.start_s if window else 0.0):
            self._before = self._fleet.counters()
        if window is not None and now_s >= window.end_s:
            return True
        return not self._open and self._arrivals.next_s == float("inf")

    @property
    def _now_s(self) -> float:
        """Time since time 0 of the run (s); -inf while warm-up turns run."""
        return self._clock.now_s - self._arrivals.began_s

    def _finish(self) -> SimulationRecords:
        records, window = self.records, self._options.window
        records.makespan_s = self._now_s
        if window is not None:
            records.makespan_s = min(records.makespan_s, window.end_s)
        if self._before is not None:
            records.counters = self._fleet.counters().since(self._before)
        records.turns.extend(self._record(turn, None) for turn in self._open.values())
        for number in sorted(self._arrivals.live & self._started_s.keys()):
            records.sessions.append(self._session_record(number, None))
        return records

    # Requests.

    def _tell(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._fleet.command(command)

    def _send_due(self) -> None:
        for due in self._arrivals.pop_due(self._clock.now_s):
            self._send(due)

    def _send(self, due: Due) -> None:
        replays, options = self._replays, self._options
        number, turn_index = due.number, due.turn_index
        session = replays.session(number)
        prompt_tokens = replays.prompt_tokens(number, turn_index)
        output_tokens = 1 if due.is_warm_up else replays.output_tokens(number, turn_index)
        new_tokens = self._new_tokens[replays.salt(number)]
        num_sent_blocks = new_tokens.note_sent(session, turn_index)
        request = SimRequest(
            request_id=request_id(number, turn_index),
            block_keys=replays.keys(number, turn_index),
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            hints=self._hints(number, turn_index),
            session_id=replays.session_id(number) if options.session_ids else None,
            stream=replays.session_id(number),
        )
        self._tell(self._tools.returned(replays.session_id(number)))
        if options.graphs and session.graph is not None:
            self._declare(number, turn_index, session.graph)
        if not due.is_warm_up:
            self._started_s.setdefault(number, due.sent_s - self._arrivals.began_s)
        self._open[request.request_id] = _OpenTurn(
            due,
            prompt_tokens - num_sent_blocks * replays.block_tokens(number),
            output_tokens,
        )
        self._fleet.submit(request)

    def _declare(self, number: int, turn_index: int, graph: WorkflowGraph) -> None:
        """Declare a workflow's step graph before its first request."""
        if turn_index == self._declared.setdefault(number, turn_index):
            workflow_id = self._replays.workflow_id(number)
            self._fleet.command(DeclareWorkflow(tenant="", workflow_id=workflow_id, graph=graph))

    def _hints(self, number: int, turn_index: int) -> dict[str, object]:
        hints: dict[str, object] = {}
        turn = self._replays.turn(number, turn_index)
        turn_end = turn_end_hint(turn) if self._options.turn_ends else None
        if turn_end is not None:
            hints["holdfast_turn_end"] = turn_end
        if self._options.agent_ids:
            hints["holdfast_workflow_id"] = self._replays.workflow_id(number)
            agent = turn.agent or self._replays.session(number).agent
            if agent:
                hints["holdfast_agent_id"] = agent
        is_last = turn_index + 1 == len(self._replays.session(number).turns)
        if is_last and self._options.session_ends:
            hints["holdfast_final"] = True
        parent = self._arrivals.parent_of(number) if self._options.session_ids else None
        if parent is not None:
            hints["holdfast_parent_session_id"] = self._replays.session_id(parent)
        return hints

    # Steps.

    @property
    def _counts_now(self) -> bool:
        window = self._options.window
        return self._now_s >= 0 if window is None else window.contains(self._now_s)

    def _account(self, ended: EndedStep) -> None:
        now_s, (step, outcome) = self._now_s, ended[:2]
        if self._counts_now:
            self.records.output_tokens += outcome.num_output_tokens
            self.records.uncovered_s += 0.0 if ended.is_covered else ended.took_s
        for name, cached_tokens in step.cached_tokens.items():
            self._open[name].cached_tokens = cached_tokens
            self._open[name].loaded_tokens = step.loaded_tokens.get(name, 0)
        for name in outcome.lost:
            self._open[name].first_token_s = None
        for name in outcome.started:
            if self._open[name].first_token_s is None:
                self._open[name].first_token_s = now_s
        for name in outcome.finished:
            self._end_turn(self._open.pop(name))

    def _end_turn(self, turn: _OpenTurn) -> None:
        due = turn.due
        if due.is_warm_up:
            self._arrivals.turn_ended(due.number, due.turn_index, self._clock.now_s)
            return
        record = self._record(turn, self._now_s)
        self.records.turns.append(record)
        if self._on_turn is not None:
            self._on_turn(record)
        has_ended = self._arrivals.turn_ended(due.number, due.turn_index, self._clock.now_s)
        if self._options.tool_events and not has_ended:
            session_id = self._replays.session_id(due.number)
            ended = self._replays.turn(due.number, due.turn_index)
            self._tell(self._tools.paused(session_id, ended, self._clock.now_s))
        if has_ended:
            if self._declared.pop(due.number, None) is not None:
                workflow_id = self._replays.workflow_id(due.number)
                self._fleet.command(EndWorkflow(tenant="", workflow_id=workflow_id))
            self.records.sessions.append(self._session_record(due.number, self._now_s))

    @property
    def _next_s(self) -> float:
        """When a request is sent or a tool finishes next (s)."""
        return min(self._arrivals.next_s, self._tools.next_s)

    def _undisturbed_s(self) -> float:
        """Time to what comes next, or to an edge of the window (s)."""
        next_s = self._next_s - self._clock.now_s
        window = self._options.window
        if window is None:
            return next_s
        now_s = self._now_s
        edge_s = window.start_s if now_s < window.start_s else window.end_s
        return min(next_s, max(edge_s - now_s, 0.0))

    # Records.

    def _record(self, turn: _OpenTurn, last_token_s: float | None) -> TurnRecord:
        number, turn_index = turn.due.number, turn.due.turn_index
        replays = self._replays
        prompt_tokens = replays.prompt_tokens(number, turn_index)
        num_kept_blocks = kept_blocks(replays.session(number), turn_index)
        return TurnRecord(
            session_id=replays.session_id(number),
            turn_index=turn_index,
            sent_s=turn.due.sent_s - self._arrivals.began_s,
            first_token_s=turn.first_token_s,
            last_token_s=last_token_s,
            prompt_tokens=prompt_tokens,
            appended_tokens=prompt_tokens - num_kept_blocks * replays.block_tokens(number),
            first_seen_tokens=turn.first_seen_tokens,
            output_tokens=turn.output_tokens,
            cached_tokens=turn.cached_tokens,
            loaded_tokens=turn.loaded_tokens,
        )

    def _session_record(self, number: int, ended_s: float | None) -> SessionRecord:
        is_whole = ended_s is not None and self._arrivals.is_whole(number)
        return SessionRecord(
            self._replays.session_id(number),
            self._started_s[number],
            self.records.makespan_s if ended_s is None else ended_s,
            is_whole,
        )
