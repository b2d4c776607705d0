"""Agents' calls to come, learned online, each tenant apart."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter

from holdfast.core.agents import AgentKey
from holdfast.predict.agent_transitions import END, Agent, AgentTransitions, Context
from holdfast.predict.first_calls import first_calls
from holdfast.predict.inter_arrival import CallStatistics, InterArrivalModel
from holdfast.predict.step_intervals import StepIntervals

__all__ = ["AgentCalls", "ExpectedCall", "Workload", "agent_number", "tenant_number"]

STEPS_AHEAD = 16
MIN_PREDICTABILITY = 0.3
_LEAST_EVIDENCE_BITS = 2.0  # odds of 4 to 1
_UNJUDGED = 8
_MAX_TENANTS = 32
_MAX_WORKFLOWS = 256
_MAX_AGENTS = 1024
_MAX_EXPECTED = 32
_GONE_SHARE = 0.05
_LEAST_SILENCE = 0.1  # of an interval
_UNKNOWN_REPEATS = 0.5
_REPEATS_GAIN = 0.2


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """A call that a workflow is expected to make.

    Attributes:
        workflow: The workflow.
        agent: The agent.
        steps: Expected steps until then, an unlikely call counting as a late one (>= 1).
        soon: Probability that it is made within two steps (0 to 1).
        seen_s: When the workflow called last (s).
    """

    workflow: Hashable
    agent: Agent
    steps: float
    soon: float
    seen_s: float


@dataclass(slots=True)
class _Position:
    """Where a workflow is.

    Attributes:
        context: Its last agents.
        called_s: When the last of them was called first (s).
        heard_s: When one was called last, or answered (s).
        num_running: Calls that have not been answered (count).
        end_probability: That of an end after the last agent (0 to 1).
        has_ended: Whether the application said so.
        expected: The calls to come, soonest first.
    """

    context: Context = ()
    called_s: float = -math.inf
    heard_s: float = -math.inf
    num_running: int = 0
    end_probability: float = 0.0
    has_ended: bool = False
    expected: tuple[ExpectedCall, ...] = ()


class Workload:
    """The agents of one tenant.

    A workflow that is silent may have ended. How likely that is follows from the ends after its
    last agent, and from the intervals of all workflows: a silence that is much longer than those
    counts as an end, and is learned like one that the application tells.

    Attributes:
        order: Which agent is called after which.
        inter_arrivals: Times between the calls of one agent.
        forgotten: Whether sessions that were forgotten had gone on.
        intervals: Times from one agent of a workflow to the next.
        silences: The part of them in which no call of the workflow is in the engine.
        num_called: Steps learned since the start (count).
    """

    def __init__(self) -> None:
        self.order = AgentTransitions()
        self.inter_arrivals = InterArrivalModel()
        self.forgotten = CallStatistics()
        self.intervals = StepIntervals()
        self.silences = StepIntervals()
        self.num_called = 0
        self._positions: OrderedDict[Hashable, _Position] = OrderedDict()
        self._going_on: OrderedDict[Hashable, None] = OrderedDict()  # silent the longest first
        self._expected: dict[Agent, dict[Hashable, ExpectedCall]] = {}
        self._repeats = _UNKNOWN_REPEATS
        self._repeats_of: OrderedDict[Agent, float] = OrderedDict()

    @property
    def interval_s(self) -> float:
        """Typical time from one agent of a workflow to the next (s); 0 if not known. Pure."""
        return self.intervals.typical_s

    @property
    def predictability(self) -> float:
        """Share of the next agent's entropy that the last agents take away (<= 1). Pure."""
        return self.order.predictability

    @property
    def is_predictable(self) -> bool:
        """Whether the order of agents may be used: chance would not look like it. Pure."""
        has_evidence = self.order.evidence_bits >= _LEAST_EVIDENCE_BITS
        return has_evidence and self.predictability >= MIN_PREDICTABILITY

    def called(self, workflow: Hashable, agent: Agent, now_s: float) -> None:
        """Learn that a workflow calls an agent; repeated calls are one. Mutates.

        Args:
            workflow: Calls of one workflow follow each other.
            agent: The agent.
            now_s: Time now (s).
        """
        position = self._positions.pop(workflow, None)
        if position is None or position.has_ended:
            position = _Position()
        self._positions[workflow] = position
        if position.context and not position.num_running:
            silence_s = max(now_s - position.heard_s, _LEAST_SILENCE * self.interval_s)
            self.silences.observe(silence_s)
        self._hear(workflow, position, now_s)
        position.num_running += 1
        before = position.context[-1:]
        if before:
            self._learn_repeat(before[0], was_repeat=before[0] == agent)
        if before == (agent,):
            return
        if before:
            self.intervals.observe(now_s - position.called_s)
        self.num_called += 1
        position.context = self.order.observe(position.context, agent)
        position.called_s = now_s
        position.end_probability = self.order.end_probability(position.context)
        self._expect(workflow, position, self._predict(workflow, position))
        self._learn_ends(now_s)
        if len(self._positions) > _MAX_WORKFLOWS:
            oldest, dropped = self._positions.popitem(last=False)
            self._going_on.pop(oldest, None)
            self._expect(oldest, dropped, ())

    def answered(self, workflow: Hashable, now_s: float) -> None:
        """Take in that a call of a workflow has been answered, or aborted (s). Mutates."""
        position = self._positions.get(workflow)
        if position is not None:
            position.num_running = max(position.num_running - 1, 0)
            self._hear(workflow, position, now_s)

    def ended(self, workflow: Hashable) -> None:
        """Learn from the application that a workflow has ended. Mutates."""
        position = self._positions.get(workflow)
        if position is None or position.has_ended:
            return
        position.has_ended = True
        if workflow in self._going_on:
            del self._going_on[workflow]
            self.order.observe(position.context, END)
        self._expect(workflow, position, ())

    def forget_positions(self) -> None:
        """Forget the workflows that run; what was learned stays. Mutates."""
        self._positions.clear()
        self._going_on.clear()
        self._expected.clear()

    def is_expected(self, agent: Agent) -> bool:
        """Whether a workflow is expected to call an agent. Pure."""
        return agent in self._expected and self.is_predictable and self.interval_s > 0.0

    def call_rate(self, agent: Agent, now_s: float) -> float:
        """Expected calls of an agent a second, by the order of agents (1/s, >= 0). Pure.

        Workflows call independently, so their rates add up.
        """
        if not self.is_expected(agent):
            return 0.0
        return sum(self._rate(call, now_s) for call in self._expected[agent].values())

    def call_rate_in(self, workflow: Hashable, agent: Agent, now_s: float) -> float | None:
        """The same of one workflow's calls alone (1/s, >= 0). Pure.

        None where the order does not tell what follows in the workflow.
        """
        position = self._positions.get(workflow)
        if position is None or not self.is_predictable or self.interval_s <= 0.0:
            return None
        if not (position.has_ended or self.order.is_known(position.context)):
            return None
        call = self._expected.get(agent, {}).get(workflow)
        return 0.0 if call is None else self._rate(call, now_s)

    def share_going_on(self, workflow: Hashable, now_s: float) -> float:
        """Probability that a workflow calls again, given its silence (0 to 1). Pure.

        1 for one that is not known.
        """
        position = self._positions.get(workflow)
        return 1.0 if position is None else self._share_going_on(position, now_s)

    def repeat_share(self, workflow: Hashable, agent: Agent) -> float:
        """Probability that an agent is called again before any other (0 to 1). Pure.

        0 unless the workflow has called it last.
        """
        position = self._positions.get(workflow)
        if position is None or position.context[-1:] != (agent,):
            return 0.0
        return self._repeats_of.get(agent, self._repeats)

    def upcoming(self, least_probability: float, now_s: float) -> list[ExpectedCall]:
        """Calls that are likely within two steps, soonest first. Pure; O(workflows).

        Among equals those of the workflow that called last come first.

        Args:
            least_probability: Probability of a call within two steps, at least (0 to 1).
            now_s: Time now (s).
        """
        if not self.is_predictable or self.interval_s <= 0.0:
            return []
        calls = (
            call
            for position in reversed(self._positions.values())
            for call in position.expected
            if call.soon >= least_probability
            and call.soon * self._share_going_on(position, now_s) >= least_probability
        )
        return sorted(calls, key=attrgetter("steps"))

    def _rate(self, call: ExpectedCall, now_s: float) -> float:
        """Expected uses of a prefix that is kept for a call (1/s, >= 0). Pure."""
        rest_s = self.intervals.rest_s(now_s - call.seen_s)
        wait_s = rest_s + (call.steps - 1.0) * self.interval_s
        return self._share_going_on(self._positions[call.workflow], now_s) / wait_s

    def _share_going_on(self, position: _Position, now_s: float) -> float:
        """Probability that a workflow calls again, given its silence (0 to 1). Pure."""
        if position.has_ended:
            return 0.0
        if position.num_running:
            return 1.0
        silence_s, ends = now_s - position.heard_s, position.end_probability
        survival = min(each.survival(silence_s) for each in (self.intervals, self.silences))
        waits = (1.0 - ends) * survival
        return waits / (waits + ends)

    def _hear(self, workflow: Hashable, position: _Position, now_s: float) -> None:
        position.heard_s = now_s
        self._going_on[workflow] = None
        self._going_on.move_to_end(workflow)

    def _learn_ends(self, now_s: float) -> None:
        """Learn the ends of workflows that have been silent for too long. Mutates."""
        while self._going_on:
            workflow = next(iter(self._going_on))
            position = self._positions[workflow]
            if self._share_going_on(position, now_s) >= _GONE_SHARE:
                return
            del self._going_on[workflow]
            self.order.observe(position.context, END)

    def _learn_repeat(self, agent: Agent, *, was_repeat: bool) -> None:
        share = self._repeats_of.pop(agent, self._repeats)
        self._repeats_of[agent] = share + _REPEATS_GAIN * (was_repeat - share)
        self._repeats += _REPEATS_GAIN * (was_repeat - self._repeats)
        if len(self._repeats_of) > _MAX_AGENTS:
            self._repeats_of.popitem(last=False)

    def _predict(self, workflow: Hashable, position: _Position) -> tuple[ExpectedCall, ...]:
        """The calls to come; none where the order is known to be of no use."""
        is_unjudged = self.order.losses[0].num_scored < _UNJUDGED
        if not (is_unjudged or self.is_predictable):
            return ()
        found = first_calls(self.order, position.context, STEPS_AHEAD)
        calls = [
            ExpectedCall(workflow, agent, call.steps, call.within[1], position.called_s)
            for agent, call in found.items()
        ]
        return tuple(sorted(calls, key=attrgetter("steps"))[:_MAX_EXPECTED])

    def _expect(
        self, workflow: Hashable, position: _Position, calls: tuple[ExpectedCall, ...]
    ) -> None:
        """Replace the calls that a workflow is expected to make."""
        for call in position.expected:
            callers = self._expected[call.agent]
            del callers[workflow]
            if not callers:
                del self._expected[call.agent]
        position.expected = calls
        for call in calls:
            self._expected.setdefault(call.agent, {})[workflow] = call


class AgentCalls:
    """The workloads of all tenants, the least recently active forgotten first.

    What one tenant's agents do is learned for that tenant alone. Knows no absolute time: scaling
    all times by a factor scales all answers by it.
    """

    def __init__(self) -> None:
        self._workloads: OrderedDict[int, Workload] = OrderedDict()

    def __iter__(self) -> Iterator[Workload]:
        """All workloads, the least recently active first."""
        return iter(self._workloads.values())

    def find(self, tenant: str) -> Workload | None:
        """The workload of a tenant, if there is one. Pure."""
        return self._workloads.get(tenant_number(tenant))

    def items(self) -> list[tuple[int, Workload]]:
        """Numbers of tenants and their workloads, the least recently active first. Pure."""
        return list(self._workloads.items())

    def put(self, number: int, workload: Workload) -> None:
        """Take over what is known of a tenant. Mutates."""
        self._workloads[number] = workload

    @property
    def num_called(self) -> int:
        """Steps of workflows learned since the start (count). Pure; O(tenants)."""
        return sum(workload.num_called for workload in list(self))

    @property
    def predictability(self) -> float:
        """The best of all tenants (<= 1). Pure; O(tenants)."""
        return max((workload.predictability for workload in list(self)), default=0.0)

    @property
    def num_predictable(self) -> int:
        """Tenants whose order of agents is used (count). Pure; O(tenants)."""
        return sum(workload.is_predictable for workload in list(self))

    def of(self, tenant: str) -> Workload:
        """The workload of a tenant, made if there is none. Mutates the order of tenants."""
        number = tenant_number(tenant)
        workload = self._workloads.pop(number, None) or Workload()
        self._workloads[number] = workload
        if len(self._workloads) > _MAX_TENANTS:
            self._workloads.popitem(last=False)
        return workload


def agent_number(key: AgentKey) -> Agent:
    """A number for an agent, unique within its tenant, equal in all processes. Pure."""
    kind = b"i" if key.is_explicit else b"p"
    name = (key.agent_id or "").encode(errors="surrogatepass") + (key.fingerprint or b"")
    return _number(kind + name)


def tenant_number(tenant: str) -> int:
    """A number that stands for a tenant's name, which may be a secret. Pure."""
    return _number(b"t" + tenant.encode(errors="surrogatepass"))


def _number(data: bytes) -> int:
    number = int.from_bytes(blake2b(data, digest_size=7).digest(), "big")
    return number or 1
