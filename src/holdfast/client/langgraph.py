"""LangGraph: nodes as agents, and a compiled graph as a step graph.

    from holdfast.client.langgraph import graph_workflow

    with graph_workflow(app):
        app.invoke({"topic": "caches"})

Requests of the `write` node are agent `write`'s, those of node `draft` in the subgraph `team`
agent `team:draft`'s. Nodes are found by LangGraph's own context, in tasks and threads alike.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from holdfast.client.blocks import workflow
from holdfast.client.names import clean_id
from holdfast.client.node_steps import NodeSteps, steps_of
from holdfast.client.scope import Frame, Scope, current, enter
from holdfast.client.session import Session
from holdfast.client.workflow import StepGraph, Workflow

try:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.tracers.context import register_configure_hook
    from langgraph.config import get_config
    from langgraph.graph.state import CompiledStateGraph
except ImportError as error:
    raise ImportError("holdfast.client.langgraph needs LangGraph: pip install langgraph") from error

__all__ = ["graph_workflow", "step_graph"]

_MAX_SESSIONS: Final = 10_000
_MAX_TOOLS: Final = 10_000


def step_graph(
    graph: CompiledStateGraph[Any, Any, Any, Any], agents: Collection[str] | None = None
) -> StepGraph:
    """Return which node is called after which. Pure.

    Edges from several nodes at once join all of them, others any; of the targets of conditional
    edges one runs. Subgraphs are taken apart.

    Args:
        graph: As `StateGraph.compile` returns it.
        agents: Nodes that call a model; the others are passed over. By default all nodes but
            those that run tools.

    Raises:
        ConfigError: An agent is no node of the graph.
    """
    return steps_of(graph, agents).graph


@contextlib.contextmanager
def graph_workflow(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    workflow_id: str | None = None,
    *,
    agents: Collection[str] | None = None,
    final: bool | None = None,
) -> Iterator[Workflow]:
    """Make runs of a graph inside a workflow whose agents are the graph's nodes.

    A node has one session, which each of its calls continues; parallel calls by `Send` have one
    each. Tools of tool nodes are those of the agent that called them.

    Args:
        graph: The graph.
        workflow_id: Names the workflow, such as a thread's id; by default a new id.
        agents: As for `step_graph`.
        final: Whether the nodes' sessions end with the block; by default they do if its id is
            new.

    Raises:
        ConfigError: An agent is no node of the graph, or the id is empty.
    """
    steps = steps_of(graph, agents)
    with workflow(workflow_id, steps.graph) as run:
        nodes = _Nodes(run, steps, current().session)
        token = _tool_events.set(_ToolEvents())
        try:
            with enter(replace(current(), source=nodes.frame)):
                yield run
        finally:
            with contextlib.suppress(ValueError):
                _tool_events.reset(token)
            if workflow_id is None if final is None else final:
                nodes.close()


@dataclass(frozen=True, slots=True)
class _Node:
    """The node that runs."""

    path: str
    key: str
    branch: int | None


def _running_node() -> _Node | None:
    try:
        metadata = get_config().get("metadata") or {}
    except RuntimeError:  # outside of a graph
        return None
    key = metadata.get("langgraph_checkpoint_ns") or ""
    path = ":".join(part.partition(":")[0] for part in key.split("|"))
    if not path:
        return None
    triggered: Sequence[Any] = metadata.get("langgraph_path") or ()
    is_sent = len(triggered) > 1 and triggered[0] == "__pregel_push"
    branch = triggered[1] if is_sent and isinstance(triggered[1], int) else None
    return _Node(path, key, branch)


class _Nodes:
    """Sessions of the nodes of one workflow. Safe for threads."""

    def __init__(self, run: Workflow, steps: NodeSteps, around: Session | None) -> None:
        self._run = run
        self._steps = steps
        self._around = around
        self._sessions: OrderedDict[tuple[str, int | None], Session] = OrderedDict()
        self._lock = threading.Lock()

    def frame(self, scope: Scope) -> Frame | None:
        """The running node's frame; None outside of nodes that call a model."""
        node = _running_node()
        if node is None:
            return None
        before = self._steps.before_passed.get(node.path)
        session = self._of(node) if before is None else self._latest(before)
        return None if session is None else Frame(node.key, session)

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.close()

    def _of(self, node: _Node) -> Session:
        key = node.path, node.branch
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                suffix = "" if node.branch is None else f"/{node.branch}"
                name = clean_id(f"{self._run.id}/{node.path}{suffix}", what="session")
                agent_id = clean_id(node.path, what="node")
                session = Session(name, agent_id=agent_id, parent=self._around)
                self._sessions[key] = session
                if len(self._sessions) > _MAX_SESSIONS:
                    self._sessions.popitem(last=False)[1].close()
            return session

    def _latest(self, paths: Collection[str]) -> Session | None:
        """The session among those of some nodes that sent a request last."""
        with self._lock:
            sessions = [s for (path, _), s in self._sessions.items() if path in paths]
        return max(sessions, key=lambda session: session.last_request, default=None)


class _ToolEvents(BaseCallbackHandler):  # type: ignore[misc]
    """Tells the session of the running node about tools that LangChain runs."""

    run_inline = True

    def __init__(self) -> None:
        self._running: OrderedDict[UUID, tuple[Session, str]] = OrderedDict()

    def on_tool_start(
        self, serialized: dict[str, Any] | None, input_str: str, *, run_id: UUID, **_: Any
    ) -> None:
        """Take a tool that starts; see LangChain."""
        session = current().session
        name = (serialized or {}).get("name")
        if session is None or not isinstance(name, str) or not name.strip():
            return
        tool = clean_id(name, what="tool")
        self._running[run_id] = session, tool
        if len(self._running) > _MAX_TOOLS:
            self._running.popitem(last=False)
        session.start_tool(tool)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        """Take a tool that ends; see LangChain."""
        self._finish(run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Take a tool that fails; see LangChain."""
        self._finish(run_id)

    def _finish(self, run_id: UUID) -> None:
        session, tool = self._running.pop(run_id, (None, None))
        if session is not None and tool is not None:
            session.finish_tool(tool)


_tool_events: ContextVar[_ToolEvents | None] = ContextVar("holdfast_tool_events", default=None)
register_configure_hook(_tool_events, inheritable=True)
