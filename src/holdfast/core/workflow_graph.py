"""Workflow graphs as applications declare them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.core.bounded_name import MAX_NAME_CHARS

__all__ = ["MAX_AGENTS", "MAX_EDGES", "AgentStep", "WorkflowGraph"]

MAX_AGENTS: Final = 10_000
MAX_EDGES: Final = 50_000

_Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]


class AgentStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent of a workflow and those that come before it.

    Attributes:
        agent_id: Its name, as requests carry it.
        after: Agents that run before it, itself where it may follow itself. Without any it is an
            entry.
        join: Whether it waits for all of them, or runs after any.
        fork: Whether all agents that come after it run, or one of them.
        entry: Whether the workflow may begin with it although other agents come before it.
    """

    agent_id: _Name
    after: tuple[_Name, ...] = ()
    join: Literal["all", "any"] = "all"
    fork: Literal["all", "one"] = "all"
    entry: bool = False

    @property
    def is_entry(self) -> bool:
        """Whether the workflow may begin with it. Pure."""
        return self.entry or not self.after


class WorkflowGraph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agents of one workflow. Loops are allowed.

    Attributes:
        agents: At least one, each name once.

    Raises:
        ValueError: There is no agent, an agent is named twice, one comes after an unknown agent or
            twice after the same, or the graph is too large. Decoding raises
            `msgspec.ValidationError`, which is one.
    """

    agents: tuple[AgentStep, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.agents) <= MAX_AGENTS:
            raise ValueError(f"{len(self.agents)} agents; expected 1 to {MAX_AGENTS}")
        num_edges = sum(len(agent.after) for agent in self.agents)
        if num_edges > MAX_EDGES:
            raise ValueError(f"{num_edges} entries of 'after'; expected {MAX_EDGES} at most")
        known: set[str] = set()
        for agent in self.agents:
            if agent.agent_id in known:
                raise ValueError(f"agent {agent.agent_id!r} is declared twice")
            known.add(agent.agent_id)
        for agent in self.agents:
            before = set(agent.after)
            if not before <= known:
                unknown = next(name for name in agent.after if name not in known)
                raise ValueError(f"agent {agent.agent_id!r} comes after unknown {unknown!r}")
            if len(before) < len(agent.after):
                raise ValueError(f"agent {agent.agent_id!r} comes after one agent twice")

    @property
    def size(self) -> int:
        """Agents and edges (count). Pure."""
        return len(self.agents) + sum(len(agent.after) for agent in self.agents)
