"""What sessions wait for when a turn ends, and which sessions are closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.core.events import Event, PauseExplained, SessionClosed
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.policies.base import AdmissionPolicy
from holdfast.predict.features import features_of
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.return_tracker import ReturnTracker
from holdfast.runtime.session_blocks import SessionBlocks
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.tool_calls.delegated_tasks import DelegatedTasks
from holdfast.tool_calls.turn_end import TurnEnd

__all__ = ["TurnEnds"]


class TurnEnds:
    """Sets what sessions wait for, and closes sessions that wait for nothing.

    A stream that ends without a tool call waits for a human, unless another agent reads its answer:
    a sub-agent, or a call for a title or a summary under the id of an agent. Such a stream is
    closed. Of several streams with one explicit id the first that calls a tool is the agent's own;
    where none does, streams of one turn beside a much longer one are not.
    A stream that returns after it was closed is not closed again for that reason.

    Args:
        table: All sessions.
        context: The runtime's books.
        blocks: Which path each session has.
        priorities: Rescores sessions.
        tracker: Follows pauses.
        admission: Decides which sessions keep a reservation; may be replaced.
        show: Shows an event to the policies.

    Attributes:
        admission: See the argument.
        tasks: What agents have told sub-agents to do, which identifies these without an id.
    """

    def __init__(
        self,
        table: SessionTable,
        context: RuntimeContext,
        blocks: SessionBlocks,
        priorities: SessionPriorities,
        tracker: ReturnTracker,
        admission: AdmissionPolicy,
        show: Callable[[Event], None],
    ) -> None:
        self._table = table
        self._context = context
        self._blocks = blocks
        self._priorities = priorities
        self._tracker = tracker
        self.admission = admission
        self._show = show
        self.tasks = DelegatedTasks()

    def ended(self, session: Session, end: TurnEnd | None) -> None:
        """Set what a session waits for after its turn; `end` is None if unknown. Mutates."""
        self._set(session, end)
        self._tracker.paused(session)

    def awaited(self, session: Session) -> None:
        """Note that the last turn's end is being read; `known` follows. Mutates."""
        session.awaits_end = True

    def known(self, session: Session, num_turns: int, end: TurnEnd) -> None:
        """Take in what ended turn `num_turns`. Mutates.

        A session that has returned already stays as it is; its pause is learned now.
        """
        if session.num_turns != num_turns:
            self._tracker.explained(session, num_turns, features_of(end))
            return
        session.awaits_end = False
        if session.state.is_paused:
            self._set(session, end)
            is_promised = session.retained_until_s > self._context.now_s
            retains = is_promised or self.admission.retains(session)
            if session.state.is_paused and not retains:
                self._blocks.release(session)

    def imminent(self, session: Session) -> None:
        """Take in that a paused session is about to return: it is retained again. Mutates."""
        if session in self._context.idle and self.admission.retains(session):
            self._blocks.reserve(session)

    def prompt_read(self, session: Session, text: str) -> None:
        """Take in the end of a session's first prompt, `plain`. Mutates."""
        if self.tasks.matches(session.tenant, text):
            session.has_parent = True
            if session.state is SessionState.HUMAN_AWAY and not _asks(session.gap):
                self._close_answered(session)

    def close(self, session: Session, state: SessionState) -> None:
        """End a session; `state` is the reason. Mutates."""
        self._blocks.release(session)
        self._context.idle.leave(session)
        self._context.tier.forget(session)
        session.state, session.retention_priority = state, 0.0
        self._blocks.rescore(session)
        self._show(SessionClosed(self._context.now_s, session))

    def resumed(self, session: Session) -> None:
        """Take in a session's next turn, before its state changes. Mutates."""
        session.comes_back |= session.state is SessionState.CLOSED
        self._tracker.returned(session, self._context.now_s)
        self._context.idle.leave(session)
        self._blocks.release(session)

    def _set(self, session: Session, end: TurnEnd | None) -> None:
        session.gap = features_of(end)
        is_human = end is not None and end.kind == "human"
        session.state = SessionState.HUMAN_AWAY if is_human else SessionState.AT_TOOL
        self._show(PauseExplained(self._context.now_s, session))
        self._priorities.mark(session)
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
        """Close a stream that ended without a tool call if another agent reads its answer."""
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
