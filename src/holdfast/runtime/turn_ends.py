"""How turns end: what each session waits for, and which sessions will not go on."""

from __future__ import annotations

from typing import Any

from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.policies.base import PolicyContext
from holdfast.predict.features import features_of
from holdfast.runtime.idle_sessions import IdleSessions
from holdfast.runtime.return_tracker import ReturnTracker
from holdfast.runtime.session_blocks import SessionBlocks
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.tool_calls.delegated_tasks import DelegatedTasks
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["TurnEnds"]


class TurnEnds:
    """Sets what sessions wait for, and closes those that wait for nothing.

    A stream that ends without a tool call waits for a human, unless another agent reads its answer:
    a sub-agent, or a call for a title or a summary under the id of an agent. Such a stream is
    closed. Of several streams with one explicit id the first that calls a tool is the agent's own;
    where none does, streams of one turn beside a much longer one are not.
    A stream that comes back after it was closed is not closed again for that reason.

    Args:
        table: All sessions.
        away: Those that may come back.
        chains: Which chain each session has.
        scores: SessionPriorities of sessions.
        fates: How pauses end.
        scene: Knows the tier below the cache.

    Attributes:
        tasks: What agents have told sub-agents to do, by which these are known without an id.
    """

    def __init__(
        self,
        table: SessionTable,
        away: IdleSessions,
        chains: SessionBlocks,
        scores: SessionPriorities,
        fates: ReturnTracker,
        context: PolicyContext,
    ) -> None:
        self._table = table
        self._away = away
        self._chains = chains
        self._scores = scores
        self._fates = fates
        self._context = context
        self.tasks = DelegatedTasks()

    def ended(self, session: Session, end: TurnEnd | None) -> None:
        """A turn has ended; `end` is what ended it, None if that is not known. Mutates."""
        self._set(session, end)
        self._fates.paused(session)

    def awaited(self, session: Session) -> None:
        """What ended the last turn is being read. Mutates."""
        session.awaits_end = True

    def known(self, session: Session, num_turns: int, end: TurnEnd) -> None:
        """What ended turn `num_turns` has become known. Mutates.

        A session that is back already stays as it is; its pause is learned now.
        """
        if session.num_turns != num_turns:
            self._fates.explained(session, num_turns, features_of(end))
            return
        session.awaits_end = False
        if session.state.is_paused:
            self._set(session, end)
            self._chains.rescore(session)
            if session.state.is_paused and not self._scores.policy.retains(session):
                self._chains.release(session)

    def prompt_read(self, session: Session, text: str) -> None:
        """The end of a session's first prompt reads so, `plain`. Mutates."""
        if self.tasks.matches(session.tenant, text):
            session.has_parent = True
            if session.state is SessionState.HUMAN_AWAY and not _asks(session.gap):
                self._close_answered(session)

    def close(self, session: Session, state: SessionState) -> None:
        """The session will not go on; `state` says why. Mutates."""
        self._chains.release(session)
        self._away.leave(session)
        self._context.tier.forget(session)
        session.state, session.rate = state, 0.0
        self._chains.rescore(session)

    def resumed(self, session: Session) -> None:
        """A session sends its next turn, before its state changes. Mutates."""
        session.comes_back |= session.state is SessionState.CLOSED
        self._fates.returned(session, self._context.now_s)
        self._away.leave(session)
        self._chains.release(session)

    def _set(self, session: Session, end: TurnEnd | None) -> None:
        session.gap = features_of(end)
        is_human = end is not None and end.kind == "human"
        session.state = SessionState.HUMAN_AWAY if is_human else SessionState.AT_TOOL
        self._scores.policy.pause_known(session)
        self._scores.rate(session)
        if end is None or end.kind == "unknown":
            return
        self.tasks.observe(session.tenant, end)
        if is_human and not end.calls:
            self._close_answered(session)
        elif end.kind == "tool" and not session.calls_tools:
            session.calls_tools = True
            for sibling in list(self._table.siblings(session)):
                if sibling.state is SessionState.HUMAN_AWAY and not _asks(sibling.gap):
                    self._close_answered(sibling)

    def _close_answered(self, session: Session) -> None:
        """Close a stream that has ended without a tool call if another agent reads its answer."""
        if not session.comes_back and (session.has_parent or self._is_beside_root(session)):
            self.close(session, SessionState.CLOSED)

    def _is_beside_root(self, session: Session) -> bool:
        root = None if session.group is None else self._table.root_of(session.group)
        if root is None:
            return self._table.is_side_call(session)
        return root is not session


def _asks(gap: Any) -> bool:
    """Whether a pause for a human began with a tool that asks one."""
    return bool(gap.tool)
