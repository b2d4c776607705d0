"""Agent trees: which sessions are sub-agents, when they start, who waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.traces.record import Session

__all__ = ["AgentTrees", "Join"]


@dataclass(frozen=True, slots=True)
class Join:
    """A turn's wait for a sub-agent.

    Attributes:
        child: Index of the sub-agent's session.
        residual_s: Recorded time from the sub-agent's end to the turn (s).
        fills_gap: Whether the sub-agent outlasted the recorded start of the turn's gap, so that the
            gap is the wait for it.
    """

    child: int
    residual_s: float
    fills_gap: bool


class AgentTrees:
    """The trees that sessions form by `Session.parent_id`.

    A sub-agent starts at the end of its parent's turn that called it, after the recorded delay. The
    parent's recorded turn that follows the sub-agent's end waits for it: the gap before that turn
    is what the sub-agent takes now, and the recorded rest. Where no turn is recorded to wait, it is
    the first one that began after the sub-agent had ended.

    Args:
        sessions: The sessions of a run, parents anywhere among them.

    Attributes:
        roots: For each session the index of its tree's root.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        indexes = {session.session_id: index for index, session in enumerate(sessions)}
        self._parents = [_parent(session, indexes, sessions) for session in sessions]
        self.roots = [self._root(index) for index in range(len(sessions))]
        self._children: dict[tuple[int, int], list[int]] = {}
        self._joins: dict[tuple[int, int], list[Join]] = {}
        for child, parent in enumerate(self._parents):
            if parent is not None:
                self._add(child, parent)

    def is_root(self, index: int) -> bool:
        """Whether a session starts by itself. Pure."""
        return self._parents[index] is None

    def parent_of(self, index: int) -> int | None:
        """Index of the session that started a sub-agent; None for a root. Pure."""
        return self._parents[index]

    def called_by(self, index: int, turn_index: int) -> Sequence[int]:
        """Indexes of the sub-agents that a turn calls. Pure."""
        return self._children.get((index, turn_index), ())

    def joins(self, index: int, turn_index: int) -> Sequence[Join]:
        """The sub-agents that a turn waits for. Pure."""
        return self._joins.get((index, turn_index), ())

    def delay_s(self, child: int) -> float:
        """Recorded time from the call of a sub-agent to its first request (s). Pure."""
        parent, session = self._parents[child], self._sessions[child]
        if parent is None:
            return 0.0
        for tool in self._sessions[parent].turns[session.parent_turn or 0].tools:
            if tool.session_id == session.session_id:
                return tool.start_s or 0.0
        return 0.0

    def _root(self, index: int) -> int:
        seen = set()
        while (parent := self._parents[index]) is not None and index not in seen:
            seen.add(index)
            index = parent
        if index in seen:  # a circle of parents has no root
            self._parents[index] = None
        return index

    def _add(self, child: int, parent: int) -> None:
        session, turns = self._sessions[child], self._sessions[parent].turns
        called = session.parent_turn or 0
        self._children.setdefault((parent, called), []).append(child)
        end_s = self.delay_s(child) + _duration_s(session)
        gap_begins_s = 0.0
        for index in range(called + 1, len(turns)):
            begins_s = gap_begins_s + turns[index].gap_s
            if index == session.join_turn or (session.join_turn is None and begins_s >= end_s):
                residual_s = max(begins_s - end_s, 0.0)
                join = Join(child, residual_s, fills_gap=end_s > gap_begins_s)
                self._joins.setdefault((parent, index), []).append(join)
                return
            gap_begins_s = begins_s + (turns[index].latency_s or 0.0)


def _parent(session: Session, indexes: dict[str, int], sessions: Sequence[Session]) -> int | None:
    """Index of a session's parent, where it is among the sessions and its turn exists."""
    parent = indexes.get(session.parent_id or "")
    if parent is None or (session.parent_turn or 0) >= len(sessions[parent].turns):
        return None
    return parent


def _duration_s(session: Session) -> float:
    """Recorded time from a session's first request to its last answer (s)."""
    return sum(turn.gap_s + (turn.latency_s or 0.0) for turn in session.turns)
