"""Applies commands: tools that run or have finished, sessions that end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.core.bounded_name import bounded_name
from holdfast.core.commands import (
    MAX_EXPECTED_S,
    CloseSession,
    Command,
    CommandOutcome,
    DeclareWorkflow,
    EndWorkflow,
    ToolFinished,
    ToolStarted,
    session_group,
)
from holdfast.core.events import Event, WorkflowEnded
from holdfast.core.session import Session, SessionState, SessionTable
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.session_priorities import SessionPriorities
from holdfast.runtime.turn_ends import TurnEnds
from holdfast.tool_calls.syntax import ToolCall, make_call
from holdfast.tool_calls.turn_end import TurnEnd, turn_end_of

__all__ = ["ClientCommands"]

_MAX_TOOLS: Final = 64
_LAG_MEMORY: Final = 0.1
_ACCEPTED: Final = CommandOutcome("accepted")
_LATER: Final = CommandOutcome("accepted", "applies when the session's turn ends")


@dataclass(slots=True)
class _RunningTool:
    """A tool that runs; the call is None if unnamed, the end (s) if not known."""

    call: ToolCall | None
    ends_s: float | None


@dataclass(slots=True)
class _Told:
    """What was reported since a session's last turn arrived.

    Attributes:
        tools: Tools that run, in order of their start.
        has_tools: Whether a tool has run.
        hinted_gap_s: What the last request's hint says about the pause (s), or None.
        closes: Whether the session is closed when its turn ends.
    """

    tools: list[_RunningTool] = field(default_factory=list)
    has_tools: bool = False
    hinted_gap_s: float | None = None
    closes: bool = False


class ClientCommands:
    """Follows what clients say about their sessions.

    A tool that runs explains the pause. When the last one has finished the session's return is
    imminent; how soon is learned. What is reported during a turn applies at its end.
    The next turn ends what was reported.

    Args:
        table: All sessions.
        context: The runtime's books.
        turn_ends: Sets what sessions wait for.
        priorities: Rescores sessions.
        show: Shows an event to the policies.
    """

    def __init__(
        self,
        table: SessionTable,
        context: RuntimeContext,
        turn_ends: TurnEnds,
        priorities: SessionPriorities,
        show: Callable[[Event], None],
    ) -> None:
        self._table = table
        self._context = context
        self._turn_ends = turn_ends
        self._priorities = priorities
        self._show = show
        self._told: dict[Session, _Told] = {}
        self._lag_s = 0.0

    def apply(self, command: Command) -> CommandOutcome:
        """Apply one command. Mutates."""
        match command:
            case ToolStarted():
                return self._tool_started(command)
            case ToolFinished():
                return self._tool_finished(command)
            case CloseSession():
                return self._close(command)
            case DeclareWorkflow():
                return self._declare(command)
            case EndWorkflow():
                return self._end(command)

    def contradicts(self, session: Session, num_turns: int, end: TurnEnd) -> bool:
        """Whether a turn end that was read is not the one that was told. Pure."""
        told = self._told.get(session)
        if told is None or not told.has_tools or session.num_turns != num_turns:
            return False
        return end.kind != "tool"

    def turn_ended(self, session: Session) -> None:
        """Apply what was reported during the turn that has ended. Mutates."""
        told = self._told.get(session)
        if told is None or not session.state.is_paused:
            return
        told.hinted_gap_s = session.expected_gap_s
        if told.closes:
            self._turn_ends.close(session, SessionState.CLOSED)
        elif told.tools:
            self._explain(session, told)
        elif told.has_tools:
            self._expect_return(session)

    def returned(self, session: Session) -> None:
        """Forget what was reported before the session's next turn. Mutates."""
        self._told.pop(session, None)
        if session.result_at_s is not None:
            share = _LAG_MEMORY if self._lag_s else 1.0
            self._lag_s += share * (self._context.now_s - session.result_at_s - self._lag_s)
            session.result_at_s = None

    def forget(self, session: Session) -> None:
        """Forget a session. Mutates."""
        self._told.pop(session, None)

    def clear(self) -> None:
        """Forget all sessions. Mutates."""
        self._told.clear()

    def _tool_started(self, command: ToolStarted) -> CommandOutcome:
        """Take in that a tool runs for a session. Mutates."""
        session = self._stream_of(command.tenant, command.session_id)
        if session is None:
            return _unknown(command.session_id)
        if session.state.is_ended:
            return CommandOutcome("rejected", "the session is closed until its next turn")
        told = self._told.setdefault(session, _Told(hinted_gap_s=session.expected_gap_s))
        if len(told.tools) >= _MAX_TOOLS:
            return CommandOutcome("rejected", f"{_MAX_TOOLS} tools of the session run already")
        expected_s, excess = _clipped(command.expected_s)
        ends_s = None if expected_s is None else self._context.now_s + expected_s
        told.tools.append(_RunningTool(make_call(command.tool), ends_s))
        told.has_tools = True
        if session.state.is_paused:
            self._explain(session, told)
        if excess:
            return CommandOutcome("clipped", excess)
        return _ACCEPTED if session.state.is_paused else _LATER

    def _tool_finished(self, command: ToolFinished) -> CommandOutcome:
        """Take in that a tool of a session has finished. Mutates."""
        session = self._stream_of(command.tenant, command.session_id)
        if session is None:
            return _unknown(command.session_id)
        if session.state.is_ended:
            return CommandOutcome("rejected", "the session is closed until its next turn")
        told = self._told.get(session)
        if told is not None:
            told.tools = _without(told.tools, command.tool)
        if session.state.is_busy:
            return _LATER if told is not None else _ACCEPTED
        if told is not None and told.tools:
            self._explain(session, told)
        else:
            self._expect_return(session)
        return _ACCEPTED

    def _close(self, command: CloseSession) -> CommandOutcome:
        """Close all streams of a session id. Mutates."""
        streams = list(self._streams_of(command.tenant, command.session_id))
        if not streams:
            return _unknown(command.session_id)
        for session in streams:
            self._close_stream(session)
        return _LATER if any(s.state.is_busy for s in streams) else _ACCEPTED

    def _declare(self, command: DeclareWorkflow) -> CommandOutcome:
        """Take in a workflow's step graph, in place of an older one. Mutates."""
        tenant, workflow_id = bounded_name(command.tenant), bounded_name(command.workflow_id)
        self._context.declare_workflow(tenant, workflow_id, command.graph)
        return _ACCEPTED

    def _end(self, command: EndWorkflow) -> CommandOutcome:
        """Forget a workflow's step graph, and close its streams without an id. Mutates."""
        tenant, workflow_id = bounded_name(command.tenant), bounded_name(command.workflow_id)
        was_declared = self._context.end_workflow(tenant, workflow_id)
        streams = [session for session in self._table if _is_of(session, tenant, workflow_id)]
        if not (was_declared or streams):
            reason = "no such workflow of this tenant is declared, or has sent a turn"
            return CommandOutcome("unknown_workflow", reason)
        self._show(WorkflowEnded(self._context.now_s, tenant, workflow_id))
        for session in streams:
            if session.group is None:
                self._close_stream(session)
        return _ACCEPTED

    def _close_stream(self, session: Session) -> None:
        """Close a session, after its turn if it is in the engine."""
        if session.state.is_busy:
            self._told.setdefault(session, _Told()).closes = True
        elif session.state.is_paused:
            self._turn_ends.close(session, SessionState.CLOSED)

    def _explain(self, session: Session, told: _Told) -> None:
        """Set that a paused session waits for tools that run."""
        session.result_at_s = None
        self._context.idle.result_awaited(session)
        calls = tuple(tool.call for tool in told.tools if tool.call is not None)
        known = {call.name for call in calls}
        gap: Any = session.gap
        if gap is None or gap.kind in ("human", "unknown") or (known and gap.tool not in known):
            end = turn_end_of(calls) if calls else TurnEnd("tool")
            self._turn_ends.known(session, session.num_turns, end)
        ends_s = [tool.ends_s for tool in told.tools if tool.ends_s is not None]
        session.expected_gap_s = told.hinted_gap_s
        if ends_s:
            session.expected_gap_s = max(max(ends_s) - session.paused_at_s, 0.0)
        self._priorities.mark(session)

    def _expect_return(self, session: Session) -> None:
        """Set that the session's next turn is imminent."""
        session.expected_gap_s = None
        session.result_at_s, session.result_lag_s = self._context.now_s, self._lag_s
        self._context.idle.result_known(session)
        self._turn_ends.imminent(session)
        self._priorities.mark(session)

    def _stream_of(self, tenant: str, session_id: str) -> Session | None:
        """The stream that a session id's tools belong to: the agent's own, or the longest."""
        streams = list(self._streams_of(tenant, session_id))
        root = self._table.root_of(session_group(tenant, session_id))
        return root or max(streams, key=_length, default=None)

    def _streams_of(self, tenant: str, session_id: str) -> Iterator[Session]:
        return iter(self._table.of_group(session_group(tenant, session_id)))


def _length(session: Session) -> tuple[int, int]:
    return session.prompt_blocks, session.number


def _is_of(session: Session, tenant: str, workflow_id: str) -> bool:
    identity = session.identity
    return identity.workflow_id == workflow_id and identity.tenant == tenant


def _clipped(expected_s: float | None) -> tuple[float | None, str]:
    """An expected duration within bounds (s), and what was wrong; "" if nothing."""
    if expected_s is None:
        return None, ""
    if math.isnan(expected_s) or expected_s < 0.0:
        return None, f"expected_s {expected_s} is no duration and does not count"
    if expected_s > MAX_EXPECTED_S:
        return MAX_EXPECTED_S, f"expected_s is cut to {MAX_EXPECTED_S:.0f}"
    return expected_s, ""


def _without(tools: list[_RunningTool], name: str) -> list[_RunningTool]:
    """The tools but the first of that name; none without a name. Pure."""
    call = make_call(name)
    if call is None:
        return []
    rest = list(tools)
    for index, tool in enumerate(tools):
        if tool.call == call:
            del rest[index]
            break
    return rest


def _unknown(session_id: str) -> CommandOutcome:
    return CommandOutcome(
        "unknown_session", f"no session {session_id[:64]!r} of this tenant has sent a turn"
    )
