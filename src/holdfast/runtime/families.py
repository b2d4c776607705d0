"""Families: which sessions are sub-agents of which, and which agents wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from holdfast.core.join import Join
from holdfast.core.session import Session, SessionTable, recency
from holdfast.predict.agent_runs import AgentRuns
from holdfast.tool_calls.delegated_tasks import num_delegated, waits_for_agents
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["Families"]

_MAX_DEPTH = 64
_MAX_CHILDREN = 1024


@dataclass(slots=True)
class _Children:
    """The sub-agents of one session.

    Attributes:
        running: Those that have not ended, and when each began (s).
        ended: Those that have, the longest ago first.
    """

    running: dict[Session, float] = field(default_factory=dict)
    ended: dict[Session, None] = field(default_factory=dict)


class Families:
    """Follows sub-agents from their first turn to their end, and who waits for them.

    The parent of a session is the one that its client names, or the one whose turn called it with
    a task that its prompt holds, or, for a stream under the id of an agent that waits for
    sub-agents, that agent. A sub-agent that begins while its parent is paused at a tool that calls
    agents belongs to that pause: the parent waits for it (a join). One that runs while its parent
    goes on is in the background; no turn waits for it until the parent waits for its agents by a
    tool of its own. An agent that returns before its sub-agents have ended shows that such a
    tool does not wait, which is learned.

    Sessions without a sub-agent cost nothing. Not thread-safe.

    Args:
        table: All sessions.
        runs: Learns how long sub-agents run.
        now_s: The host's clock (s).
        changed: Called with an agent whose wait has changed.
    """

    def __init__(
        self,
        table: SessionTable,
        runs: AgentRuns,
        now_s: Callable[[], float],
        changed: Callable[[Session], None],
    ) -> None:
        self._table = table
        self._runs = runs
        self._now_s = now_s
        self._changed = changed
        self._parents: dict[Session, Session] = {}
        self._children: dict[Session, _Children] = {}

    def parent_of(self, session: Session) -> Session | None:
        """The agent that started a session; None if none is known. Pure."""
        return self._parents.get(session)

    def num_running(self, session: Session) -> int:
        """Sub-agents of a session that run, in the background too (count). Pure."""
        children = self._children.get(session)
        return 0 if children is None else len(children.running)

    def are_related(self, one: Session, other: Session) -> bool:
        """Whether one started the other, or one agent started both. Pure."""
        parent, other_parent = self._parents.get(one), self._parents.get(other)
        if parent is other or other_parent is one:
            return True
        return parent is not None and parent is other_parent

    # What sub-agents do.

    def turn_arrived(self, session: Session) -> None:
        """Take in a turn: find the parent, or take back an ended session. Mutates.

        To be called when the session has its new identity.
        """
        parent = self._parents.get(session)
        for ancestor in self._ancestors(parent):
            if ancestor.join is not None:
                ancestor.join.active_s = self._now_s()
                self._table.touch(ancestor)
        if parent is None:
            parent = self._named_parent(session) or self._waiting_root(session)
            if parent is not None:
                self.adopt(session, parent)
        elif session not in self._children[parent].running:
            del self._children[parent].ended[session]
            self._begin(session, parent, self._now_s())

    def adopt(self, session: Session, parent: Session) -> None:
        """Note who started a session, unless that closes a circle. Mutates."""
        if session in self._parents or any(a is session for a in self._ancestors(parent)):
            return
        children = self._children.setdefault(parent, _Children())
        if len(children.running) + len(children.ended) >= _MAX_CHILDREN:
            oldest = next(iter(children.ended), None)
            if oldest is None:
                return
            self._unlink(oldest)
            children = self._children.setdefault(parent, _Children())
        self._parents[session] = parent
        session.has_parent = True
        if session.state.is_ended:
            children.ended[session] = None
        else:
            self._begin(session, parent, session.began_s)

    def ended(self, session: Session) -> None:
        """Take in that a session has given its last answer, or will not return. Mutates."""
        parent = self._parents.get(session)
        if parent is None:
            return
        children = self._children[parent]
        began_s = children.running.pop(session, None)
        if began_s is None:
            return
        children.ended[session] = None
        join = parent.join
        if join is not None and join.leave(session.number, session.paused_at_s):
            self._runs.observe_run(parent.gap, session.paused_at_s - began_s)
            self._changed(parent)

    # What agents do.

    def paused(self, session: Session, end: TurnEnd | None) -> None:
        """Begin a session's wait for sub-agents if its turn called any. Mutates.

        Repeats when the turn's end becomes known, or known better. Sub-agents that have begun
        since the turn ended are taken in.
        """
        join, session.join = session.join, None
        if session.state.is_ended or not self._runs.may_join(session.gap):
            return
        calls = () if end is None else end.calls
        join = join or self._new_join(session)
        join.is_trusted = self._runs.is_join(session.gap)
        if session.gap.kind == "sub_agent":
            join.num_called = num_delegated(calls)
            self._adopt_streams(session)
        takes_all = any(waits_for_agents(call) for call in calls)
        children = self._children.get(session)
        for child, began_s in () if children is None else children.running.items():
            if takes_all or began_s >= session.paused_at_s:
                join.enter(child.number, began_s)
        if join.num_sub_agents:
            session.join = join

    def returned(self, session: Session) -> None:
        """End a session's wait: it has sent its next turn. Mutates."""
        join, session.join = session.join, None
        if join is None:
            return
        if join.num_running:
            self._runs.observe_early_return(session.gap)
        elif join.ended_s is not None:
            self._runs.observe_join(session.gap, self._now_s() - join.ended_s)
            session.result_at_s = None

    # Books.

    def forget(self, session: Session) -> None:
        """Forget a session, and who started its sub-agents. Mutates."""
        self.ended(session)
        self._unlink(session)
        children = self._children.pop(session, None)
        if children is not None:
            for child in (*children.running, *children.ended):
                del self._parents[child]
        session.join = None

    def clear(self) -> None:
        """Forget all sessions; what was learned stays. Mutates."""
        self._parents.clear()
        self._children.clear()

    def _begin(self, session: Session, parent: Session, began_s: float) -> None:
        self._children[parent].running[session] = began_s
        if not self._may_wait(parent, began_s):
            return
        if parent.join is None:
            parent.join = self._new_join(parent)
        parent.join.enter(session.number, began_s)
        self._changed(parent)

    def _new_join(self, parent: Session) -> Join:
        is_trusted = self._runs.is_join(parent.gap)
        return Join(parent.paused_at_s, active_s=self._now_s(), is_trusted=is_trusted)

    def _unlink(self, session: Session) -> None:
        """Forget who started a session."""
        parent = self._parents.pop(session, None)
        if parent is None:
            return
        children = self._children[parent]
        children.running.pop(session, None)
        children.ended.pop(session, None)
        if not children.running and not children.ended:
            del self._children[parent]

    def _ancestors(self, found: Session | None) -> Iterator[Session]:
        """A session, its parent, that one's, and so on."""
        for _ in range(_MAX_DEPTH):
            if found is None:
                return
            yield found
            found = self._parents.get(found)

    def _named_parent(self, session: Session) -> Session | None:
        """The stream that the client names as the parent; one that waits comes first."""
        group = session.identity.parent_group
        if group is None or group == session.group:
            return None
        streams = self._table.of_group(group)
        waiting = [s for s in islice(streams, _MAX_CHILDREN) if self._may_wait(s, session.began_s)]
        if waiting:
            return max(waiting, key=recency)
        return self._table.root_of(group) or max(streams, key=recency, default=None)

    def _adopt_streams(self, session: Session) -> None:
        """Adopt streams under a root's id that began before its call was read."""
        if session.group is None or self._table.root_of(session.group) not in (session, None):
            return
        for stream in islice(tuple(self._table.of_group(session.group)), _MAX_CHILDREN):
            is_own = stream is session or stream.is_side_call
            if not is_own and stream.began_s >= session.paused_at_s:
                self.adopt(stream, session)

    def _waiting_root(self, session: Session) -> Session | None:
        """The agent whose id the stream bears, if it waits for sub-agents."""
        if session.group is None or session.is_side_call:
            return None
        root = self._table.root_of(session.group)
        if root is None or root is session or root.gap is None:
            return None
        is_called = root.gap.kind == "sub_agent" and self._may_wait(root, session.began_s)
        return root if is_called else None

    def _may_wait(self, parent: Session, began_s: float) -> bool:
        """Whether an agent was paused, when another began, at a tool that may call agents."""
        if not parent.state.is_paused or began_s < parent.paused_at_s:
            return False
        return self._runs.may_join(parent.gap)
