"""Where the fixed prefixes of named agents end in the prefix tree."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.agents import AgentKey
from holdfast.core.events import Event, SessionForgotten, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.policies.base import Observer, PolicyContext

__all__ = ["FixedPrefixes"]

_MAX_AGENTS = 4096


@dataclass(slots=True, eq=False)
class _FixedPrefix:
    """The prefix that all calls of an agent have, as far as is known.

    Attributes:
        agent: The agent.
        latest: The session of its latest call; None once that is forgotten.
        node: Node in which the prefix ends.
        end_blocks: Depth at which it ends (blocks).
    """

    agent: AgentKey
    latest: Session | None
    node: Node[Any]
    end_blocks: int = 0


class FixedPrefixes(Observer):
    """Finds the end of each named agent's fixed prefix, and the steps to its next use.

    It ends where the client says; else where the agent's latest prompt parts from the one before;
    of a first prompt it is all. Of a session that goes on, all that it has is the beginning of its
    next prompt.
    """

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._prefixes: OrderedDict[AgentKey, _FixedPrefix] = OrderedDict()  # by latest call
        self._ending_in: dict[Node[Any], dict[_FixedPrefix, None]] = {}

    def observe(self, event: Event) -> None:
        """Learn from named agents; rerank what is needed later than before. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._turn_arrived(turn.session)
            case TurnEnded(turn=turn) if turn.session.num_turns > 1:
                self._append_answer(turn.session)
            case SessionForgotten(session=session):
                prefix = self._of(session)
                if prefix is not None and prefix.latest is session:
                    prefix.latest = None
        for agent in self.context.workflows.take_receded():
            receded = self._prefixes.get(agent)
            if receded is not None:
                self.context.rerank(receded.node)

    def steps_to(self, node: Node[Any]) -> int | None:
        """Fewest steps until a declared agent needs it; None if unknown. O(nodes below)."""
        steps_to = self.context.workflows.steps_to
        fewest: int | None = None
        for prefix in self._that_need(node):
            steps = steps_to(prefix.agent)
            if steps == 0:
                return 0
            if steps is not None and (fewest is None or steps < fewest):
                fewest = steps
        return fewest

    def contain(self, node: Node[Any]) -> bool:
        """Whether the node is part of a fixed prefix of a declared agent. O(nodes below)."""
        workflows = self.context.workflows
        return any(prefix.agent in workflows for prefix in self._that_need(node))

    def next_ends(self, max_steps: int) -> Iterator[Node[Any]]:
        """Last nodes of the prefixes that are needed within so many steps, soonest first."""
        for _, agent in self.context.workflows.next_agents(max_steps):
            prefix = self._prefixes.get(agent)
            if prefix is not None and prefix.node.is_attached:
                yield prefix.node

    def _turn_arrived(self, session: Session) -> None:
        agent = AgentKey.of(session.identity, None)
        if agent is None or session.tail.parent is None:
            return
        prefix = self._prefixes.pop(agent, None)
        if prefix is None:
            prefix = _FixedPrefix(agent, None, session.tail)
        self._prefixes[agent] = prefix
        self._end_at(prefix, session, self._end_blocks(prefix, session))
        prefix.latest = session
        if len(self._prefixes) > _MAX_AGENTS:
            _, oldest = self._prefixes.popitem(last=False)
            self._forget_end(oldest)

    def _append_answer(self, session: Session) -> None:
        prefix = self._of(session)
        if prefix is not None and prefix.latest is session and session.fixed_blocks is None:
            self._end_at(prefix, session, session.tail.end)

    def _end_blocks(self, prefix: _FixedPrefix, session: Session) -> int:
        """Depth at which the fixed prefix of a session's agent ends (blocks, > 0)."""
        if session.fixed_blocks is not None:
            return min(max(session.fixed_blocks, 1), session.prompt_blocks)
        latest = prefix.latest
        if session.num_turns == 1 and latest is not None and latest is not session:
            path = set(latest.tail.path())
            for node in session.tail.path():
                if node in path:
                    return node.end
        return session.prompt_blocks

    def _end_at(self, prefix: _FixedPrefix, session: Session, end_blocks: int) -> None:
        self._forget_end(prefix)
        prefix.end_blocks = end_blocks
        prefix.node = next(node for node in session.tail.path() if node.start < end_blocks)
        self._ending_in.setdefault(prefix.node, {})[prefix] = None

    def _forget_end(self, prefix: _FixedPrefix) -> None:
        ending = self._ending_in.get(prefix.node)
        if ending is not None:
            ending.pop(prefix, None)
            if not ending:
                del self._ending_in[prefix.node]

    def _of(self, session: Session) -> _FixedPrefix | None:
        agent = AgentKey.of(session.identity, None)
        return None if agent is None else self._prefixes.get(agent)

    def _that_need(self, node: Node[Any]) -> Iterator[_FixedPrefix]:
        """Fixed prefixes that contain the node's first block."""
        if not self._ending_in:
            return
        for part in node.subtree():
            for prefix in self._ending_in.get(part, ()):
                if node.start < prefix.end_blocks:
                    yield prefix
