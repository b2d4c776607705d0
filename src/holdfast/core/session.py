"""Sessions: streams of turns, each of which extends the last; and their table.

An agent that runs sub-agents is several sessions; an explicit id groups them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.cache.prefix_tree import Node, PrefixTree
from holdfast.core.identity import ANONYMOUS, Identity
from holdfast.core.join import Join
from holdfast.core.tenants import Account

__all__ = ["SIDE_CALL_RATIO", "Session", "SessionState", "SessionTable", "recency"]


SIDE_CALL_RATIO = 2
"""Least ratio of an agent's prompt to that of a call for a title."""


class SessionState(enum.Enum):
    """What a session is doing."""

    RUNNING = "running"
    WAITING = "waiting"
    AT_TOOL = "at_tool"
    HUMAN_AWAY = "human_away"
    SUPERSEDED = "superseded"
    CLOSED = "closed"

    @property
    def is_paused(self) -> bool:
        """Whether the session is idle and may return."""
        return self in (SessionState.AT_TOOL, SessionState.HUMAN_AWAY)

    @property
    def is_ended(self) -> bool:
        """Whether the session will not return, as far as is known."""
        return self in (SessionState.SUPERSEDED, SessionState.CLOSED)

    @property
    def is_busy(self) -> bool:
        """Whether one of the session's turns is in the engine."""
        return self in (SessionState.RUNNING, SessionState.WAITING)


@dataclass(slots=True, eq=False)
class Session:
    """One stream of turns.

    Attributes:
        number: Unique, in order of first sight.
        group: Explicit session id shared by the streams of one agent run, or None.
        state: What it is doing.
        tail: Last node of its path, its last output included.
        prompt_tail: Last node of its last prompt; `tail` or the node before it.
        prompt_blocks: Full blocks of its last prompt (count).
        first_blocks: Full blocks of its first prompt (count).
        fixed_blocks: Leading blocks of its last prompt that all calls of its agent have, as its
            client says (count); None if it does not.
        num_turns: Turns begun.
        began_s: When its first prompt arrived (s, host's clock).
        paused_at_s: When its last turn ended (s, host's clock).
        gap: Features of the pause, for prediction.
        awaits_end: Whether what ended its last turn is still being read.
        identity: Who sent its last turn.
        has_parent: Whether another agent started it.
        is_side_call: Whether its client says that it is a call beside a session: for a title, say.
        join: The wait for sub-agents that its last turn called; None if it called none.
        calls_tools: Whether one of its turns has ended with a tool call.
        comes_back: Whether it has returned after it was closed.
        speed: Session speed factor: its gaps relative to others of their kind.
        expected_gap_s: The client's hint on the pause (s), or None.
        result_at_s: When its tools had finished, as the client said, or the last sub-agent that it
            waits for had ended (s, host's clock); else None.
        result_lag_s: Typical time from then to a session's next turn (s); 0 if none is known.
        has_moved_on: Whether a sibling of its group, or a fork, has started since it paused.
        passed: Sessions that count as moved on since this one began.
        priority: Explicit priority of its last turn, lower is more urgent; None where the engine
            goes by none.
        own_priority: Order among its tenant's sessions by hints of its last turn, lower first.
        retained_until_s: When a promise to retain its blocks ends (s, host's clock), or -inf.
        account: What its agent run has been served; streams of one explicit id share it.
        has_reservation: Whether admission keeps its blocks from other turns while it is idle.
        retention_priority: Last computed one; the smallest is evicted first.
        stale_at_s: When that is stale (s, host's clock).
    """

    number: int
    group: str | None
    state: SessionState
    tail: Node[Any]
    prompt_tail: Node[Any]
    prompt_blocks: int = 0
    first_blocks: int = 0
    fixed_blocks: int | None = None
    num_turns: int = 0
    began_s: float = 0.0
    paused_at_s: float = 0.0
    gap: Any = None
    awaits_end: bool = False
    identity: Identity = ANONYMOUS
    has_parent: bool = False
    is_side_call: bool = False
    join: Join | None = None
    calls_tools: bool = False
    comes_back: bool = False
    speed: Any = None
    expected_gap_s: float | None = None
    result_at_s: float | None = None
    result_lag_s: float = 0.0
    has_moved_on: bool = False
    passed: Sequence[Session] = ()
    priority: int | None = None
    own_priority: int = 0
    retained_until_s: float = -math.inf
    account: Account = field(default_factory=Account)
    has_reservation: bool = False
    retention_priority: float = 0.0
    stale_at_s: float = math.inf

    @property
    def tenant(self) -> str:
        """Name of its fairness domain."""
        return self.identity.tenant

    @property
    def idle_since_s(self) -> float:
        """When its pause began, or its tools had finished (s, host's clock)."""
        return self.paused_at_s if self.result_at_s is None else self.result_at_s

    def may_continue(self, group: str | None) -> bool:
        """Whether a prompt under an explicit id, or none, may be its next turn. Pure."""
        return self.group == group and not self.state.is_busy and not self.is_side_call

    @property
    def waits_for_agents(self) -> bool:
        """Whether it waits for sub-agents that have not ended."""
        join = self.join
        return join is not None and join.is_trusted and join.num_awaited > 0

    def __hash__(self) -> int:
        # Not the address: sets of sessions then iterate alike in every run of a simulation.
        return self.number


@dataclass(slots=True)
class SessionTable:
    """All remembered sessions, and which one a new prompt continues.

    Attributes:
        tree: The paths of all sessions.
        max_sessions: Sessions remembered (count); the longest idle are forgotten first.
    """

    tree: PrefixTree[Any]
    max_sessions: int
    _sessions: dict[int, Session] = field(default_factory=dict)
    _groups: dict[str, set[Session]] = field(default_factory=dict)
    _distrusted: set[str] = field(default_factory=set)
    _next_number: int = 0

    def __len__(self) -> int:
        """Remembered sessions (count)."""
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Sessions, longest untouched first."""
        return iter(self._sessions.values())

    def find(self, hashes: Sequence[bytes], group: str | None) -> Session | None:
        """The idle session that a prompt of these blocks continues.

        That is the one with the longest last prompt that the blocks extend, among equals the last
        to pause. With an explicit id only sessions of that id are considered, without one only
        those without. Pure.
        """
        last, depth = self.tree.match(hashes)
        if depth < last.end:
            last = last.parent or self.tree.root
        for node in last.path():
            best: Session | None = None
            for session in node.prompts:
                if not session.may_continue(group):
                    continue
                if best is None or recency(session) > recency(best):
                    best = session
            if best is not None:
                return best
        return None

    def num_shared(self, session: Session, hashes: Sequence[bytes]) -> int:
        """Leading blocks that the session's path and a prompt share (count). Pure."""
        last, depth = self.tree.match(hashes)
        path = set(session.tail.path())
        for node in last.path():
            if node in path:
                return min(node.end, depth)
        return 0

    def siblings(self, session: Session) -> set[Session]:
        """The sessions of the same explicit id, `session` included; empty without an id."""
        return set() if session.group is None else self.of_group(session.group)

    def of_group(self, group: str) -> set[Session]:
        """The remembered sessions of an explicit id. Pure."""
        return self._groups.get(group, set())

    def root_of(self, group: str) -> Session | None:
        """The agent's own stream of an id: the first that called a tool; None if none did."""
        callers = (session for session in self.of_group(group) if session.calls_tools)
        return min(callers, key=lambda session: session.number, default=None)

    def is_side_call(self, session: Session) -> bool:
        """Whether a stream is one answered turn beside a much longer one of its id. Pure.

        A call for a title, a summary or a commit's message.
        """
        if session.num_turns != 1 or session.state is not SessionState.HUMAN_AWAY:
            return False
        enough = SIDE_CALL_RATIO * session.first_blocks
        return any(other.prompt_blocks > enough for other in self.siblings(session))

    def trusts(self, group: str) -> bool:
        """Whether an explicit id is taken to name one stream. Pure."""
        return group not in self._distrusted

    def distrust(self, group: str) -> None:
        """Note that the explicit id names several streams. Mutates."""
        self._distrusted.add(group)

    def add(self, group: str | None) -> Session:
        """A new session without blocks. Mutates the table."""
        root = self.tree.root
        session = Session(self._next_number, group, SessionState.WAITING, root, root)
        self._next_number += 1
        self._sessions[session.number] = session
        if group is not None:
            siblings = self._groups.setdefault(group, set())
            session.account = next((other.account for other in siblings), session.account)
            siblings.add(session)
        return session

    def touch(self, session: Session) -> None:
        """Make `session` the most recently active. Mutates the order."""
        self._sessions[session.number] = self._sessions.pop(session.number)

    def surplus(self) -> list[Session]:
        """Idle sessions beyond `max_sessions`, longest untouched first. Pure."""
        excess = len(self._sessions) - self.max_sessions
        if excess <= 0:
            return []
        found: list[Session] = []
        for session in self._sessions.values():
            if len(found) == excess:
                break
            if not session.state.is_busy:
                found.append(session)
        return found

    def paused_before(self, time_s: float) -> list[Session]:
        """Idle sessions whose last turn ended before, longest untouched first. Pure.

        O(busy sessions) where there is none. One after a session that paused later is found with
        that.
        """
        found: list[Session] = []
        for session in self._sessions.values():
            if session.state.is_busy:
                continue
            if session.paused_at_s >= time_s:
                break
            found.append(session)
        return found

    def drop(self, session: Session) -> None:
        """Forget `session`, whose path the caller has already dropped. Mutates the table."""
        del self._sessions[session.number]
        if session.group is not None:
            group = self._groups[session.group]
            group.discard(session)
            if not group:
                del self._groups[session.group]
                self._distrusted.discard(session.group)


def recency(session: Session) -> tuple[float, int]:
    """Sort key: greater for a session that paused later, never equal for two. Pure."""
    return session.paused_at_s, session.number
