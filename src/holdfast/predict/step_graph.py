"""Steps to execution of a workflow's agents, from its graph and what has run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final, Protocol

from holdfast.core.workflow_graph import AgentStep, WorkflowGraph

__all__ = ["MAX_STEPS", "MAX_WORK", "AgentStep", "StepGraph", "StepsAhead", "WorkflowGraph"]

MAX_STEPS: Final = 64
"""Farthest step that is looked at; all agents beyond are equally far."""

MAX_WORK: Final = 250
"""Agents that one update looks at, about; others are settled later."""

_AWAITED_PER_WORK = 16

_TRUSTED_SHARE = 0.5
_AGREEMENT_GAIN = 0.2


class StepsAhead(Protocol):
    """A source of steps to execution, such as a declared graph."""

    def steps_to(self, agent: Hashable) -> float | None:
        """Steps until an agent may run, 0 while it runs; None where that is unknown. Pure."""
        ...


class StepGraph:
    """Steps to execution of every agent of one running workflow.

    A running agent is 0 steps away. Any other is one step past the agents that it waits for: past
    the last one where it joins all, past the first where it joins any. An agent that has ended
    counts as running for those that have not begun since, so what has finished never delays a
    join. Steps are the least solution: a loop is never its own reason to run. When nothing runs and
    nothing can follow, the workflow may begin again, and its entries are one step away.

    An update settles only agents whose steps change, the nearest first, and after about a
    millisecond leaves the rest to later ones. Deterministic.

    Source: the Agent Step Graph of KVFlow, arXiv 2507.07400; Knuth, A generalization of Dijkstra's
    algorithm, IPL 6(1), 1977; Ramalingam and Reps, J. Algorithms 21(2), 1996, for updates.
    Differs: the frontier is observed, not sent along; a graph that most calls disagree with is not
    trusted; agents more than 64 steps away are equally far.

    Args:
        graph: The agents.
        max_steps: Farthest step that is looked at (>= 1).

    Attributes:
        graph: See the argument.
        num_calls: Calls observed (count).
        num_unexpected: Calls of agents that were not next, or are not in the graph (count).
        num_settled: Settlings of an agent's steps so far (count); what updates cost.
    """

    def __init__(self, graph: WorkflowGraph, max_steps: int = MAX_STEPS) -> None:
        self.graph = graph
        self.num_calls = 0
        self.num_unexpected = 0
        self.num_settled = 0
        self._changes: dict[str, int | None] = {}
        self._agreement = 1.0
        self._far = max_steps + 1
        agents = graph.agents
        self._names = [agent.agent_id for agent in agents]
        self._number = {name: number for number, name in enumerate(self._names)}
        numbers = self._number
        self._before = [tuple(numbers[name] for name in agent.after) for agent in agents]
        self._after: list[list[int]] = [[] for _ in agents]
        for agent, before in enumerate(self._before):
            for earlier in before:
                self._after[earlier].append(agent)
        self._joins_all = [agent.join == "all" for agent in agents]
        self._forks_one = [agent.fork == "one" for agent in agents]
        self._entries = [number for number, agent in enumerate(agents) if agent.is_entry]
        self._num_running = [0] * len(agents)
        self._total_running = 0
        self._may_begin = [agent.is_entry for agent in agents]
        self._awaited = [set(before) for before in self._before]  # agents that have not ended since
        self._joining: dict[int, None] = {}  # agents for which some have ended
        self._steps = [self._far] * len(agents)
        self._wanted = list(self._steps)  # steps by those of the agents before
        self._at = _by_steps(self._far)
        self._affected = _by_steps(self._far)  # to evaluate before those of so many steps settle
        self._queued = _by_steps(self._far)  # agents whose steps are to change
        self.recompute()

    def __contains__(self, agent_id: object) -> bool:
        """Whether the graph has the agent."""
        return agent_id in self._number

    @property
    def is_trusted(self) -> bool:
        """Whether most recent calls were those that the graph lets follow."""
        return self._agreement >= _TRUSTED_SHARE

    def steps_to(self, agent: Hashable) -> int | None:
        """Steps until an agent may run, 0 while it runs. Pure; O(1).

        None for an agent that is not in the graph, that nothing leads to or that is far.
        """
        number = self._number.get(agent)  # type: ignore[call-overload] # any hashable may be asked
        if number is None:
            return None
        steps = self._steps[number]
        return None if steps == self._far else steps

    def next_agents(self, max_steps: int) -> Iterator[tuple[int, str]]:
        """Yield agents within so many steps, with their steps, fewest first. Pure."""
        for steps in range(1, min(max_steps, self._far - 1) + 1):
            for agent in self._at[steps]:
                yield steps, self._names[agent]

    def take_changes(self) -> dict[str, int | None]:
        """Agents whose steps have changed since last asked, and the steps then. Mutates."""
        changes, self._changes = self._changes, {}
        return changes

    def agents_before(self, agent_id: str) -> Iterator[str]:
        """Agents that an agent may follow; none of an unknown one. Pure."""
        number = self._number.get(agent_id)
        before = () if number is None else self._before[number]
        return (self._names[earlier] for earlier in before)

    def began(self, agent_id: str) -> None:
        """Take in that a call of an agent has arrived. Mutates.

        An unknown agent changes no steps.
        """
        self.num_calls += 1
        agent = self._number.get(agent_id)
        is_expected = agent is not None and (self._steps[agent] <= 1 or self._is_at_loose_end)
        self._agreement += _AGREEMENT_GAIN * (is_expected - self._agreement)
        self.num_unexpected += not is_expected
        if agent is None:
            return
        self._may_begin[agent] = False
        self._affected[0].update(dict.fromkeys(self._take_ends(agent)))
        self.resumed(agent_id)

    def resumed(self, agent_id: str) -> None:
        """Take in that an agent that has ended a call runs on: it was at a tool. Mutates."""
        agent = self._number.get(agent_id)
        if agent is None:
            return
        self._num_running[agent] += 1
        self._total_running += 1
        self._affected[0][agent] = None
        self.settle()

    def ended(self, agent_id: str) -> None:
        """Take in that a call of an agent has ended. Mutates; ignored if none was running."""
        agent = self._number.get(agent_id)
        if agent is None or not self._num_running[agent]:
            return
        self._num_running[agent] -= 1
        self._total_running -= 1
        if self._num_running[agent]:
            return
        for later in self._after[agent]:
            self._awaited[later].discard(agent)
            self._joining[later] = None
        if self._steps[agent]:  # its beginning has not been settled, so nothing follows from it yet
            self._affected[1].update(dict.fromkeys(self._after[agent]))
        self._affected[0][agent] = None
        self.settle()

    def settle(self, max_work: int = MAX_WORK) -> bool:
        """Settle agents whose steps are to change, the fewest steps first. Mutates.

        One that is to have fewer steps gets them. One that is to have more is far until the agents
        before it are settled. Neither changes anything at fewer steps.

        Args:
            max_work: Agents to look at, about (count).

        Returns:
            Whether all are settled; otherwise some are taken to be farther, or nearer, than they
            are, all of them farther than those that are settled.
        """
        for steps in range(self._far):
            affected, queued = self._affected[steps], self._queued[steps]
            while affected and max_work > 0:
                agent, _ = affected.popitem()
                max_work -= 1 + len(self._awaited[agent]) // _AWAITED_PER_WORK
                self._evaluate(agent)
            while queued and max_work > 0:
                agent, _ = queued.popitem()
                max_work -= 1 + self._move(agent, steps)
            if affected or queued:
                return False
        if self._is_at_loose_end and (self._joining or self._entries):
            self._begin_again()
            return self.settle(max_work)
        return True

    def recompute(self) -> None:
        """Compute all steps anew. Mutates; O(agents + edges)."""
        far, after, awaited = self._far, self._after, self._awaited
        steps = self._steps = [far] * len(self._names)
        self._at, self._affected, self._queued = (_by_steps(far) for _ in range(3))
        missing = [len(awaited[a]) if joins else 1 for a, joins in enumerate(self._joins_all)]
        frontier = [agent for agent, number in enumerate(self._num_running) if number]
        for agent in frontier:
            steps[agent] = 0
        following = [agent for agent, may_begin in enumerate(self._may_begin) if may_begin]
        following += [agent for agent in self._joining if self._is_joined(agent)]
        for level in range(far):
            self._at[level] = dict.fromkeys(frontier)
            for agent in frontier:
                for later in after[agent]:
                    missing[later] -= agent in awaited[later]
                    if missing[later] <= 0:
                        following.append(later)
            frontier = []
            for agent in following:
                if steps[agent] == far and level + 1 < far:
                    steps[agent] = level + 1
                    frontier.append(agent)
            following = []
        self._wanted = list(steps)

    @property
    def _is_at_loose_end(self) -> bool:
        """Whether nothing runs and nothing is known to be next."""
        return not self._total_running and not self._at[1]

    def _is_joined(self, agent: int) -> bool:
        """Whether what has ended is enough for an agent to begin."""
        awaited = self._awaited[agent]
        return not awaited if self._joins_all[agent] else len(awaited) < len(self._before[agent])

    def _take_ends(self, agent: int) -> Iterable[int]:
        """Use up the ends that let an agent begin; returns agents that lose one by it."""
        before, awaited = self._before[agent], self._awaited[agent]
        if len(awaited) == len(before):
            return ()
        losers = []
        for earlier in before:
            if self._forks_one[earlier] and earlier not in awaited:
                for sibling in self._after[earlier]:
                    if sibling != agent and earlier not in self._awaited[sibling]:
                        self._awaited[sibling].add(earlier)
                        losers.append(sibling)
        awaited.update(before)
        self._joining.pop(agent, None)
        return losers

    def _begin_again(self) -> None:
        for agent in self._joining:
            self._awaited[agent].update(self._before[agent])
        self._joining.clear()
        for agent in self._entries:
            self._may_begin[agent] = True
            self._affected[0][agent] = None

    def _evaluate(self, agent: int) -> None:
        """Queue an agent if the agents before it give it other steps than it has."""
        self._wanted[agent] = wanted = self._steps_by_graph(agent)
        steps = self._steps[agent]
        if wanted != steps:
            self._queued[min(wanted, steps)][agent] = None

    def _steps_by_graph(self, agent: int) -> int:
        """Steps of an agent by those of the agents before it. O(agents before it)."""
        if self._num_running[agent]:
            return 0
        if self._may_begin[agent]:
            return 1
        before, awaited, steps = self._before[agent], self._awaited[agent], self._steps
        if not before:
            return self._far
        if self._joins_all[agent]:
            last = max([steps[earlier] for earlier in awaited], default=0)
        elif len(awaited) < len(before):
            last = 0
        else:
            last = min([steps[earlier] for earlier in before])
        return last + 1 if last < self._far else last

    def _move(self, agent: int, level: int) -> int:
        """Give a queued agent its steps; returns how many others that may affect (count)."""
        wanted, steps = self._wanted[agent], self._steps[agent]
        if wanted == steps or min(wanted, steps) != level:
            return 0  # settled since
        affected = self._affected[level + 1]
        if wanted < steps:
            new = wanted
        else:
            new = self._far
            affected[agent] = None
        self.num_settled += 1
        self._changes.setdefault(self._names[agent], None if steps == self._far else steps)
        self._steps[agent] = new
        self._at[steps].pop(agent, None)
        if new != self._far:
            self._at[new][agent] = None
        affected.update(dict.fromkeys(self._after[agent]))
        return len(self._after[agent]) // _AWAITED_PER_WORK


def _by_steps(far: int) -> list[dict[int, None]]:
    """Sets of agents by steps, in order of entry."""
    return [{} for _ in range(far + 1)]
