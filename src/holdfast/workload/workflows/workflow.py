"""What a workflow is: its agents, and which of them is called next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.core.workflow_graph import AgentStep, WorkflowGraph

__all__ = ["END", "Step", "Tokens", "Workflow", "WorkflowAgent"]

END = "end"
"""The name of the step after which a workflow ends."""

Tokens = tuple[int, int]
"""Least and most tokens of something; each length between them is as likely."""


@dataclass(frozen=True, slots=True)
class WorkflowAgent:
    """An agent of a workflow.

    Attributes:
        anchor_tokens: Its fixed prefix: system message, tools and examples.
        answer_tokens: Length of its answers.
        keeps_history: Whether its prompts hold all earlier answers after the anchor; otherwise
            they end with new tokens alone.
    """

    anchor_tokens: int
    answer_tokens: Tokens
    keeps_history: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A call of an agent; an agent may have several steps.

    Attributes:
        agent: The agent that is called.
        next: Weights of the next step.
    """

    agent: str
    next: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A kind of workflow: a Markov chain of steps.

    Attributes:
        about: What it is, and where its numbers come from.
        agents: The agents by name.
        steps: The steps by name.
        first: Name of the first step.
        num_calls: Calls after which it ends, if no step has ended it.
        task_tokens: The task, which all prompts of a session hold after the anchor.
        new_tokens: Tokens that each call adds, such as the result of a tool.
        mean_gap_s: Mean of the exponential time between an answer and the next call (s).
        is_private: Whether each session has agents of its own: no two share a name or an anchor.
        has_graph: Whether the application can declare which agents follow each other.
    """

    about: str
    agents: Mapping[str, WorkflowAgent]
    steps: Mapping[str, Step]
    first: str
    num_calls: int
    task_tokens: Tokens = (0, 0)
    new_tokens: Tokens = (0, 0)
    mean_gap_s: float = 0.0
    is_private: bool = False
    has_graph: bool = True

    def __post_init__(self) -> None:
        unknown = [step.agent for step in self.steps.values() if step.agent not in self.agents]
        following = {name for step in self.steps.values() for name in step.next}
        unknown += sorted((following | {self.first}) - {*self.steps, END})
        if unknown:
            raise ValueError(f"{unknown[0]!r} is neither a step nor an agent of the workflow")

    def graph(self, namespace: str = "") -> WorkflowGraph | None:
        """The step graph of its agents; None where none can be declared. Pure.

        Args:
            namespace: Stands before the agents' names.
        """
        if not self.has_graph:
            return None
        after: dict[str, dict[str, None]] = {agent: {} for agent in self.agents}
        following: dict[str, set[str]] = {agent: set() for agent in self.agents}
        for step in self.steps.values():
            for name in step.next:
                if name != END:
                    after[self.steps[name].agent][step.agent] = None
                    following[step.agent].add(self.steps[name].agent)
        first = self.steps[self.first].agent
        return WorkflowGraph(
            tuple(
                AgentStep(
                    agent_id=namespace + agent,
                    after=tuple(namespace + before for before in after[agent]),
                    join="any",
                    fork="one" if len(following[agent]) > 1 else "all",
                    entry=agent == first,
                )
                for agent in self.agents
            )
        )
