"""Agents' calls to come, learned online, each tenant apart."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from operator import attrgetter

from holdfast.core.agents import AgentKey
from holdfast.predict.agent_transitions import Agent, AgentTransitions, Context
from holdfast.predict.first_calls import first_calls
from holdfast.predict.inter_arrival import CallStatistics, InterArrivalModel

__all__ = ["AgentCalls", "ExpectedCall", "Workload", "agent_number", "tenant_number"]

STEPS_AHEAD = 16
MIN_PREDICTABILITY = 0.3
_MIN_SCORED = 8
_MAX_TENANTS = 32
_MAX_WORKFLOWS = 256
_MAX_EXPECTED = 32
_INTERVAL_GAIN = 0.2
_SOONEST_SHARE = 0.5  # of an interval
_OVERDUE_INTERVALS = 2.0


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
        expected: The calls to come, soonest first.
    """

    context: Context = ()
    called_s: float = -math.inf
    expected: tuple[ExpectedCall, ...] = ()


class Workload:
    """The agents of one tenant.

    Attributes:
        order: Which agent is called after which.
        inter_arrivals: Times between the calls of one agent.
        forgotten: Whether sessions that were forgotten had gone on.
        interval_s: Typical time from one agent of a workflow to the next (s); 0 if not known.
        num_called: Steps learned since the start (count).
    """

    def __init__(self) -> None:
        self.order = AgentTransitions()
        self.inter_arrivals = InterArrivalModel()
        self.forgotten = CallStatistics()
        self.interval_s = 0.0
        self.num_called = 0
        self._positions: OrderedDict[Hashable, _Position] = OrderedDict()
        self._expected: dict[Agent, dict[Hashable, ExpectedCall]] = {}

    @property
    def predictability(self) -> float:
        """Share of the next agent's entropy that the last agents take away (<= 1). Pure."""
        return self.order.predictability

    @property
    def is_predictable(self) -> bool:
        """Whether the order of agents may be used. Pure."""
        is_judged = self.order.losses[0].num_scored >= _MIN_SCORED
        return is_judged and self.predictability >= MIN_PREDICTABILITY

    def called(self, workflow: Hashable, agent: Agent, now_s: float) -> None:
        """Learn that a workflow calls an agent; repeated calls are one. Mutates.

        Args:
            workflow: Calls of one workflow follow each other.
            agent: The agent.
            now_s: Time now (s).
        """
        position = self._positions.pop(workflow, None) or _Position()
        self._positions[workflow] = position
        if position.context[-1:] == (agent,):
            return
        if position.context:
            self._learn_interval(now_s - position.called_s)
        self.num_called += 1
        position.context = self.order.observe(position.context, agent)
        position.called_s = now_s
        self._expect(workflow, position, self._predict(workflow, position))
        if len(self._positions) > _MAX_WORKFLOWS:
            oldest, dropped = self._positions.popitem(last=False)
            self._expect(oldest, dropped, ())

    def is_expected(self, agent: Agent) -> bool:
        """Whether a workflow is expected to call an agent. Pure."""
        return agent in self._expected and self.is_predictable and self.interval_s > 0.0

    def call_rate(self, agent: Agent, now_s: float) -> float:
        """Expected calls of an agent a second, by the order of agents (1/s, >= 0). Pure.

        Workflows call independently, so their rates add up.
        """
        if not self.is_expected(agent):
            return 0.0
        return sum(1.0 / self._wait_s(call, now_s) for call in self._expected[agent].values())

    def call_rate_in(self, workflow: Hashable, agent: Agent, now_s: float) -> float:
        """The same of one workflow's calls alone (1/s, >= 0). Pure."""
        call = self._expected[agent].get(workflow) if self.is_expected(agent) else None
        return 0.0 if call is None else 1.0 / self._wait_s(call, now_s)

    def is_current(self, workflow: Hashable, agent: Agent) -> bool:
        """Whether a workflow has called an agent last. Pure."""
        position = self._positions.get(workflow)
        return position is not None and position.context[-1:] == (agent,)

    def upcoming(self, least_probability: float) -> list[ExpectedCall]:
        """Calls that are likely within two steps, soonest first. Pure; O(workflows).

        Among equals those of the workflow that called last come first.

        Args:
            least_probability: Probability of a call within two steps, at least (0 to 1).
        """
        if not self.is_predictable or self.interval_s <= 0.0:
            return []
        calls = (
            call
            for position in reversed(self._positions.values())
            for call in position.expected
            if call.soon >= least_probability
        )
        return sorted(calls, key=attrgetter("steps"))

    def _wait_s(self, call: ExpectedCall, now_s: float) -> float:
        """Time that a kept prefix is expected to wait for a call (s, > 0). Pure.

        A workflow that is overdue by an interval may have ended: the longer, the less is expected.
        """
        interval_s, waited_s = self.interval_s, now_s - call.seen_s
        left_s = call.steps * interval_s - waited_s
        overdue_s = -left_s - _OVERDUE_INTERVALS * interval_s
        return max(left_s, overdue_s, _SOONEST_SHARE * interval_s)

    def _learn_interval(self, elapsed_s: float) -> None:
        if elapsed_s <= 0.0:
            return
        if self.interval_s <= 0.0:
            self.interval_s = elapsed_s
        self.interval_s *= (elapsed_s / self.interval_s) ** _INTERVAL_GAIN

    def _predict(self, workflow: Hashable, position: _Position) -> tuple[ExpectedCall, ...]:
        if not self.is_predictable:
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
