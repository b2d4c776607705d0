"""A workflow: agents in a known order, which an engine can prepare for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from holdfast.client.control import ControlChannel

__all__ = ["Step", "StepGraph", "Workflow"]


class Step(TypedDict):
    """One agent of a step graph.

    Attributes:
        agent_id: The agent, as `agent` names it.
        after: Agents that it follows; without any it is an entry.
        join: Whether it waits for all of them (by default) or for any.
        fork: Whether all agents after it run (by default) or one of them.
        entry: Whether the workflow may begin with it although it follows others.
    """

    agent_id: str
    after: NotRequired[Sequence[str]]
    join: NotRequired[Literal["all", "any"]]
    fork: NotRequired[Literal["all", "one"]]
    entry: NotRequired[bool]


class StepGraph(TypedDict):
    """Which agent is called after which; loops are allowed."""

    agents: Sequence[Step]


@dataclass(slots=True, eq=False)
class Workflow:
    """A run of a workflow, declared to each engine that gets a request of it.

    Attributes:
        id: Names the run in the engine.
        graph: Its agents; None if their order is not known.
    """

    id: str
    graph: StepGraph | None = None
    _channels: set[ControlChannel] = field(default_factory=set)

    def note_request(self, channel: ControlChannel) -> None:
        """Declare the workflow to an engine before its first request there. Mutates.

        One without a graph is only noted.
        """
        if channel in self._channels:
            return
        self._channels.add(channel)
        if self.graph is not None:
            channel.declare_workflow(self.id, self.graph)

    def close(self) -> None:
        """Tell the engines that got a request of the run that it has ended."""
        for channel in tuple(self._channels):
            channel.end_workflow(self.id)
