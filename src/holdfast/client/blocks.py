"""The blocks that an application puts around its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from holdfast.client.names import clean_id, new_id, seconds
from holdfast.client.scope import Expectation, current, enter
from holdfast.client.session import Session
from holdfast.client.workflow import StepGraph, Workflow

__all__ = ["agent", "expect", "session", "tool", "workflow"]


@contextlib.contextmanager
def session(
    session_id: str | None = None,
    *,
    agent_id: str | None = None,
    parent_id: str | None = None,
    final: bool | None = None,
) -> Iterator[Session]:
    """Make the requests inside turns of one session.

        with session():
            client.chat.completions.create(...)

    A session inside of a session is another one; use `agent` for a sub-agent.

    Args:
        session_id: Names the session, such as a chat's id; by default a new id.
        agent_id: The agent whose calls these are.
        parent_id: The session that started this one in another process.
        final: Whether the session ends with the block. By default it does if its id is new: a
            session that you name may go on elsewhere.

    Raises:
        ConfigError: An id is empty.
    """
    opened = Session(
        new_id() if session_id is None else clean_id(session_id, what="session_id"),
        agent_id=None if agent_id is None else clean_id(agent_id, what="agent_id"),
        parent=None if parent_id is None else clean_id(parent_id, what="parent_id"),
    )
    with _opened(opened, is_final=session_id is None if final is None else final):
        yield opened


@contextlib.contextmanager
def agent(
    agent_id: str, *, session_id: str | None = None, final: bool | None = None
) -> Iterator[Session]:
    """Make the requests inside those of an agent, with a session of its own.

        with session():
            with agent("researcher"):
                client.chat.completions.create(...)

    Inside of a session it is a sub-agent: the engine learns which session waits for it. Each block
    is a new session unless `session_id` names one.

    Args:
        agent_id: The agent: one name for all calls with the same instructions and tools.
        session_id: Names its session; by default a new id.
        final: As for `session`.

    Raises:
        ConfigError: An id is empty.
    """
    opened = Session(
        new_id() if session_id is None else clean_id(session_id, what="session_id"),
        agent_id=clean_id(agent_id, what="agent_id"),
        parent=current().session,
    )
    with _opened(opened, is_final=session_id is None if final is None else final):
        yield opened


@contextlib.contextmanager
def tool(name: str, *, expected_s: float | None = None) -> Iterator[None]:
    """Tell the engine that the session waits for a tool, and when the tool has ended.

        with tool("bash", expected_s=30):
            run_tests()

    Needs a token (see `attach`); without one the block changes nothing. Several tools may run at
    once: the session waits for the last one.

    Args:
        name: The tool, as the model calls it.
        expected_s: Expected duration (s); by default the engine learns it from the name.

    Raises:
        ConfigError: The name is empty, or the duration is not a finite number >= 0.
    """
    name, expected_s = clean_id(name, what="name"), seconds(expected_s, what="expected_s")
    waiting = current().session
    if waiting is None:
        yield
        return
    waiting.start_tool(name, expected_s)
    try:
        yield
    finally:
        waiting.finish_tool(name)


@contextlib.contextmanager
def workflow(workflow_id: str | None = None, graph: StepGraph | None = None) -> Iterator[Workflow]:
    """Make the agents inside steps of a workflow.

        graph = {"agents": [{"agent_id": "plan"}, {"agent_id": "write", "after": ["plan"]}]}
        with workflow(graph=graph):
            with agent("plan"): ...
            with agent("write"): ...

    Args:
        workflow_id: Names this run of the workflow; by default a new id.
        graph: Which agent is called after which; needs a token (see `attach`).

    Raises:
        ConfigError: The id is empty.
    """
    run = Workflow(
        new_id() if workflow_id is None else clean_id(workflow_id, what="workflow_id"), graph
    )
    with enter(replace(current(), workflow=run)):
        try:
            yield run
        finally:
            run.close()


@contextlib.contextmanager
def expect(
    *, turn_end: str | None = None, gap_s: float | None = None, retain_s: float | None = None
) -> Iterator[None]:
    """Tell the engine in advance how the turns inside will end.

        with expect(turn_end="tool:bash", gap_s=30):
            client.chat.completions.create(...)

    The engine reads tool calls from its own output; this is for what it cannot know. All values
    are advisory and clipped.

    Args:
        turn_end: `tool`, `tool:NAME`, `tool:NAME COMMAND` or `human`.
        gap_s: Expected pause after the turn (s).
        retain_s: Time after the turn for which to keep its cache (s).

    Raises:
        ConfigError: A value has the wrong type or is out of range.
    """
    expectation = Expectation(
        None if turn_end is None else clean_id(turn_end, what="turn_end"),
        seconds(gap_s, what="gap_s"),
        seconds(retain_s, what="retain_s"),
    )
    with enter(replace(current(), expectation=expectation)):
        yield


@contextlib.contextmanager
def _opened(opened: Session, *, is_final: bool) -> Iterator[None]:
    # What was expected of the outer session's turns does not hold for this one's.
    with enter(replace(current(), session=opened, expectation=None)):
        try:
            yield
        finally:
            if is_final:
                opened.close()
