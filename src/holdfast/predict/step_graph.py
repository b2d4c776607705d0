"""Steps to execution of a workflow's agents, from its graph and what has run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final, Protocol

from holdfast.core.workflow_graph import AgentStep, WorkflowGraph

__all__ = ["MAX_STEPS", "AgentStep", "StepGraph", "StepsAhead", "WorkflowGraph"]

MAX_STEPS: Final = 64
"""Farthest step that is looked at; all agents beyond are equally far."""

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

    An update settles only agents whose steps change, in order of steps. Deterministic.

    Source: the Agent Step Graph of KVFlow, arXiv 2507.07400; Knuth, A generalization of Dijkstra's
    algorithm, IPL 6(1), 1977; Ramalingam and Reps, J. Algorithms 21(2), 1996, for updates.
    Differs: the frontier is observed, not sent along; a graph that most calls disagree with is not
    trusted; agents more than 64 steps away are equally far.

    Args:
        graph: The agents.
        max_steps: Farthest step that is looked at (>= 1).

    Attributes:
        graph: See the argument.
        changes: Agents whose steps the last update changed, with the steps before (None: far).
        num_calls: Calls observed (count).
        num_unexpected: Calls of agents that were not next, or are not in the graph (count).
        num_settled: Settlings of an agent's steps so far (count); what updates cost.
    """

    def __init__(self, graph: WorkflowGraph, max_steps: int = MAX_STEPS) -> None:
        self.graph = graph
        self.changes: dict[str, int | None] = {}
        self.num_calls = 0
        self.num_unexpected = 0
        self.num_settled = 0
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
        self._wanted = list(self._steps)  # steps that the agents before give
        self._at: list[dict[int, None]] = [{} for _ in range(self._far + 1)]  # agents by steps
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

    def began(self, agent_id: str) -> None:
        """Take in that a call of an agent has arrived. Mutates.

        An unknown agent changes no steps.
        """
        self.changes = {}
        self.num_calls += 1
        agent = self._number.get(agent_id)
        is_expected = agent is not None and (self._steps[agent] <= 1 or self._is_at_loose_end)
        self._agreement += _AGREEMENT_GAIN * (is_expected - self._agreement)
        self.num_unexpected += not is_expected
        if agent is None:
            return
        self._num_running[agent] += 1
        self._total_running += 1
        self._may_begin[agent] = False
        self._settle([agent, *self._take_ends(agent)])

    def ended(self, agent_id: str) -> None:
        """Take in that a call of an agent has ended. Mutates; ignored if none was running."""
        self.changes = {}
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
        self._settle([agent])
        if not self._total_running and not self._at[1]:
            self._begin_again()

    def recompute(self) -> None:
        """Compute all steps anew. Mutates; O(agents + edges)."""
        self.changes = {}
        self._steps = [self._far] * len(self._names)
        self._wanted = list(self._steps)
        for agents in self._at:
            agents.clear()
        running = [agent for agent, number in enumerate(self._num_running) if number]
        self._settle([*running, *self._entries, *self._joining])

    @property
    def _is_at_loose_end(self) -> bool:
        """Whether nothing runs and nothing is known to be next."""
        return not self._total_running and not self._at[1]

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
        self._settle(self._entries)

    def _steps_by_graph(self, agent: int) -> int:
        """Steps of an agent by those of the agents before it. O(agents before it)."""
        if self._num_running[agent]:
            return 0
        if self._may_begin[agent]:
            return 1
        before, awaited = self._before[agent], self._awaited[agent]
        if not before:
            return self._far
        if self._joins_all[agent]:
            last = max(map(self._steps.__getitem__, awaited), default=0)
        elif len(awaited) < len(before):
            last = 0
        else:
            last = min(map(self._steps.__getitem__, before))
        return last + 1 if last < self._far else last

    def _settle(self, agents: Iterable[int]) -> None:
        """Settle agents whose steps may have changed, and all that follow from them.

        In order of steps. One that is to have fewer steps gets them. One that is to have more is
        far until the agents before it are settled. Neither changes anything at fewer steps.
        """
        steps, wanted, after, by_graph = (
            self._steps,
            self._wanted,
            self._after,
            self._steps_by_graph,
        )
        queued: list[list[int]] = [[] for _ in range(self._far)]
        affected: dict[int, None] = dict.fromkeys(agents)
        for level in range(self._far + 1):
            for agent in affected:
                wanted[agent] = new = by_graph(agent)
                if new != steps[agent]:
                    queued[min(new, steps[agent])].append(agent)
            if level == self._far:
                return
            affected = {}
            for agent in queued[level]:
                if wanted[agent] == steps[agent] or min(wanted[agent], steps[agent]) != level:
                    continue  # settled since
                if wanted[agent] < steps[agent]:
                    self._set(agent, wanted[agent])
                else:
                    self._set(agent, self._far)
                    affected[agent] = None
                affected.update(dict.fromkeys(after[agent]))

    def _set(self, agent: int, steps: int) -> None:
        before = self._steps[agent]
        self._steps[agent] = steps
        self.num_settled += 1
        self.changes.setdefault(self._names[agent], None if before == self._far else before)
        self._at[before].pop(agent, None)
        self._at[steps][agent] = None
