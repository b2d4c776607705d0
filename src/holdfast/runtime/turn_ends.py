"""What sessions wait for when a turn ends, and which sessions are closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from holdfast.core.events import Event, PauseExplained, SessionClosed, SubAgentsChanged
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.policies.base import AdmissionPolicy
from holdfast.predict.features import features_of
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.families import Families
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
    A stream that returns after it was closed is not closed again for that reason. A call that its
    client makes beside a session is closed with its turn, unless that calls a tool. None of these
    streams counts as one for which another was left.

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
        families: Which sessions are sub-agents, and which agents wait for them.
        num_answered: Streams closed for their last answer, by kind: sub-agent or side call (count).
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
        self.num_answered: Counter[str] = Counter()
        self.tasks: DelegatedTasks[Session] = DelegatedTasks()
        self.families = Families(
            table, context.runs, lambda: context.now_s, self._sub_agents_changed
        )

    def ended(self, session: Session, end: TurnEnd | None) -> None:
        """Set what a session waits for after its turn; `end` is None if unknown. Mutates."""
        is_tool = end is not None and end.kind == "tool"
        session.is_side_call &= not is_tool
        self._set(session, end)
        self._tracker.paused(session)
        if session.is_side_call and session.state.is_paused:
            self._answered(session)

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
        parent = self.tasks.find(session.tenant, text)
        if parent is None or parent is session:
            return
        session.has_parent = True
        self.families.adopt(session, parent)
        self._undo_moved_on(session)
        if session.state is SessionState.HUMAN_AWAY and not _asks(session.gap):
            self._answered(session)

    def close(self, session: Session, state: SessionState) -> None:
        """End a session; `state` is the reason. Mutates."""
        self._blocks.release(session)
        self._context.idle.leave(session)
        self._context.tier.forget(session)
        session.state, session.retention_priority = state, 0.0
        session.join = None
        self.families.ended(session)
        self._blocks.rescore(session)
        self._show(SessionClosed(self._context.now_s, session))

    def forget(self, session: Session) -> None:
        """Forget a session. Mutates."""
        self.families.forget(session)
        self.tasks.forget(session)
        session.passed = ()

    def clear(self) -> None:
        """Forget all sessions; what was learned stays. Mutates."""
        self.families.clear()
        self.tasks.clear()

    def resumed(self, session: Session) -> None:
        """Take in a session's next turn, before its state changes. Mutates."""
        session.comes_back |= session.state is SessionState.CLOSED
        self._tracker.returned(session, self._context.now_s)
        self.families.returned(session)
        self._context.idle.leave(session)
        self._blocks.release(session)

    def _set(self, session: Session, end: TurnEnd | None) -> None:
        session.gap = features_of(end)
        is_human = end is not None and end.kind == "human"
        session.state = SessionState.HUMAN_AWAY if is_human else SessionState.AT_TOOL
        self.families.paused(session, end)
        if session.join is not None:
            self._show(SubAgentsChanged(self._context.now_s, session))
        self._show(PauseExplained(self._context.now_s, session))
        self._priorities.mark(session)
        if end is None or end.kind == "unknown":
            return
        self.tasks.observe(session.tenant, end, session)
        if is_human and not end.calls:
            self._answered(session)
        elif end.kind == "tool" and not session.calls_tools:
            session.calls_tools = True
            for sibling in list(self._table.siblings(session)):
                if sibling.state is SessionState.HUMAN_AWAY and not _asks(sibling.gap):
                    self._answered(sibling)

    def _answered(self, session: Session) -> None:
        """Close a stream that ended without a tool call if another agent reads its answer."""
        self.families.ended(session)
        if session.comes_back:
            return
        if session.has_parent or session.is_side_call or self._is_beside_root(session):
            self._undo_moved_on(session)
            self.num_answered["sub_agent" if session.has_parent else "side_call"] += 1
            self.close(session, SessionState.CLOSED)

    def _undo_moved_on(self, session: Session) -> None:
        """Take back that sessions were left for this one, which is a stream beside them."""
        passed, session.passed = session.passed, ()
        for other in passed:
            if other.state.is_paused and other.has_moved_on:
                other.has_moved_on = False
                self._priorities.mark(other)

    def _sub_agents_changed(self, session: Session) -> None:
        """Rescore an agent whose sub-agents changed; it returns soon after the last."""
        session.has_moved_on = False
        join, idle = session.join, self._context.idle
        if join is not None and join.is_over and join.is_trusted:
            session.expected_gap_s, session.result_at_s = None, self._context.now_s
            session.result_lag_s = self._context.runs.lag_s(session.gap)
            idle.result_known(session)
            self.imminent(session)
        else:
            session.result_at_s = None
            idle.result_awaited(session)
        self._priorities.mark(session)
        self._show(SubAgentsChanged(self._context.now_s, session))

    def _is_beside_root(self, session: Session) -> bool:
        root = None if session.group is None else self._table.root_of(session.group)
        if root is None:
            return self._table.is_side_call(session)
        return root is not session


def _asks(gap: Any) -> bool:
    """Whether a pause for a human began with a tool that asks one."""
    return bool(gap.tool)
