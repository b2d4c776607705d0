"""Sessions of the agents that a tracer's open spans show.

Frameworks tell tracers which agent and tool runs. A context variable of theirs names the innermost
open span, in any task or thread; the spans around it are kept here until they end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from holdfast.client.names import clean_id
from holdfast.client.scope import Frame, Scope
from holdfast.client.session import Session
from holdfast.client.workflow import Workflow

__all__ = ["OpenSpans", "SpanInfo"]

_MAX_SPANS: Final = 10_000
_MAX_SESSIONS: Final = 10_000
_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class SpanInfo:
    """What a span says about the code inside of it; "" for nothing.

    Attributes:
        agent: An agent runs.
        tool: A tool runs.
        conversation: The conversation that it belongs to.
        workflow: A workflow runs.
    """

    agent: str = ""
    tool: str = ""
    conversation: str = ""
    workflow: str = ""


@dataclass(slots=True, eq=False)
class _Span:
    span_id: str
    parent_id: str | None
    trace_id: str
    describe: Callable[[], SpanInfo]
    sessions: list[Session] = field(default_factory=list)  # that end with it
    session: Session | None = None
    workflow: Workflow | None = None
    waiting: tuple[Session, str] | None = None  # for a tool


class OpenSpans:
    """The open spans of one tracer, and the sessions of their agents.

    Safe for threads.

    An agent that no other agent's span is around has one session a conversation, named
    `CONVERSATION/AGENT`. An agent inside of another one is its sub-agent, and its session ends with
    its span. The conversation is the span's, else the session around the trace, else the trace.
    """

    def __init__(self) -> None:
        self._spans: OrderedDict[str, _Span] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.RLock()

    def start(
        self,
        span_id: str,
        parent_id: str | None,
        trace_id: str,
        describe: Callable[[], SpanInfo],
        scope: Scope,
    ) -> None:
        """Take a span that starts. Mutates.

        Args:
            span_id: Unique among open spans.
            parent_id: The span around it, if any.
            trace_id: The trace that it belongs to.
            describe: Asked again with each request, since spans get attributes later.
            scope: The scope that it starts in.
        """
        with self._lock:
            span = _Span(span_id, parent_id, trace_id, describe)
            self._spans[span_id] = span
            if len(self._spans) > _MAX_SPANS:
                self._spans.popitem(last=False)
            tool = describe().tool
            frame = self.frame(span_id, scope) if tool else None
            session = scope.session if frame is None or _is_inside(scope, frame) else frame.session
            if tool and session is not None:
                span.waiting = session, clean_id(tool, what="tool")
                session.start_tool(span.waiting[1])

    def end(self, span_id: str) -> None:
        """Take a span that ends: its tool is done, and sessions that began in it. Mutates."""
        with self._lock:
            span = self._spans.pop(span_id, None)
        if span is None:
            return
        if span.waiting is not None:
            session, tool = span.waiting
            session.finish_tool(tool)
        for session in span.sessions:
            session.close()

    def frame(self, span_id: str, scope: Scope) -> Frame | None:
        """Return the frame of the innermost agent, None if no span tells of one."""
        with self._lock:
            spans = list(self._around(span_id))
            infos = [span.describe() for span in spans]
            workflow = self._workflow_of(spans, infos)
            for depth, info in enumerate(infos):
                if info.agent:
                    session = self._session_of(spans[depth:], infos[depth:], scope)
                    return Frame(spans[depth].span_id, session, workflow)
            conversation = next((info.conversation for info in infos if info.conversation), "")
            if not conversation:
                return None
            name = clean_id(conversation, what="conversation")
            return Frame(("conversation", name), self._named(name), workflow)

    def _around(self, span_id: str | None) -> Iterator[_Span]:
        """The span and those around it, the innermost first."""
        for _ in range(_MAX_DEPTH):
            span = None if span_id is None else self._spans.get(span_id)
            if span is None:
                return
            yield span
            span_id = span.parent_id

    def _session_of(self, spans: list[_Span], infos: list[SpanInfo], scope: Scope) -> Session:
        """The session of the first span's agent."""
        span, agent = spans[0], clean_id(infos[0].agent, what="agent")
        if span.session is None:
            outer = next((i for i in range(1, len(spans)) if infos[i].agent), None)
            if outer is None:
                span.session = self._main_session(spans, infos, agent, scope)
            else:
                parent = self._session_of(spans[outer:], infos[outer:], scope)
                if scope.frame_key == spans[outer].span_id and scope.session is not None:
                    parent = scope.session  # of a block inside of the outer agent
                name = clean_id(f"{parent.id}/{agent}/{span.span_id}", what="session")
                span.session = Session(name, agent_id=agent, parent=parent)
                span.sessions.append(span.session)
        return span.session

    def _main_session(
        self, spans: list[_Span], infos: list[SpanInfo], agent: str, scope: Scope
    ) -> Session:
        """The session of an agent with no agent around it."""
        around = scope.session
        conversation = next((info.conversation for info in infos if info.conversation), "")
        if not conversation and around is not None:
            conversation = around.id
        name = clean_id(f"{conversation or spans[-1].trace_id}/{agent}", what="session")
        session = self._named(name, agent, around)
        if not conversation and session not in spans[-1].sessions:
            spans[-1].sessions.append(session)  # no later trace can name it
        return session

    def _named(
        self, name: str, agent_id: str | None = None, parent: Session | None = None
    ) -> Session:
        session = self._sessions.get(name)
        if session is None:
            session = Session(name, agent_id=agent_id, parent=parent)
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _workflow_of(self, spans: list[_Span], infos: list[SpanInfo]) -> Workflow | None:
        for span, info in zip(spans, infos, strict=True):
            if info.workflow:
                if span.workflow is None:
                    name = f"{info.workflow}/{span.trace_id}"
                    span.workflow = Workflow(clean_id(name, what="workflow"))
                return span.workflow
        return None


def _is_inside(scope: Scope, frame: Frame) -> bool:
    """Whether the scope's blocks were entered inside of the frame. Pure."""
    return frame.key == scope.frame_key and scope.session is not None
