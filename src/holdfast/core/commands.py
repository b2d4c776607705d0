"""Commands: what applications say outside of requests.

A command is advisory, like a hint: names are bounded, values are clipped, and none can fail a
request. `AgentRuntime.command` applies one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from holdfast.core.bounded_name import bounded_name
from holdfast.core.workflow_graph import WorkflowGraph

__all__ = [
    *("Command", "CommandOutcome", "Outcome"),
    *("CloseSession", "DeclareWorkflow", "EndWorkflow", "ToolFinished", "ToolStarted"),
    *("MAX_EXPECTED_S", "command_name", "session_group"),
]

MAX_EXPECTED_S: Final = 7 * 86400.0
"""Longest duration of a tool that counts (s)."""


class DeclareWorkflow(msgspec.Struct, frozen=True, tag_field="command", tag="declare_workflow"):
    """Declares a workflow's step graph, or replaces it.

    Attributes:
        tenant: The fairness domain.
        workflow_id: The workflow, unique within its tenant.
        graph: Its agents.
    """

    tenant: str
    workflow_id: str
    graph: WorkflowGraph


class EndWorkflow(msgspec.Struct, frozen=True, tag_field="command", tag="end_workflow"):
    """Ends a workflow: no agent of it is expected any more.

    Its step graph is forgotten. Sessions that were found by lineage are closed; those with an id
    stay as they are.

    Attributes:
        tenant: The fairness domain.
        workflow_id: The workflow, unique within its tenant.
    """

    tenant: str
    workflow_id: str


class ToolStarted(msgspec.Struct, frozen=True, tag_field="command", tag="tool_started"):
    """A tool runs for a session.

    Attributes:
        tenant: The fairness domain.
        session_id: The session, unique within its tenant.
        tool: Name of the tool; "" if not named.
        expected_s: How long it will run (s); None if not known.
    """

    tenant: str
    session_id: str
    tool: str = ""
    expected_s: float | None = None


class ToolFinished(msgspec.Struct, frozen=True, tag_field="command", tag="tool_finished"):
    """A tool of a session has finished.

    Attributes:
        tenant: The fairness domain.
        session_id: The session, unique within its tenant.
        tool: Name of the tool; "" for all of the session's tools.
    """

    tenant: str
    session_id: str
    tool: str = ""


class CloseSession(msgspec.Struct, frozen=True, tag_field="command", tag="close_session"):
    """A session will not return.

    Attributes:
        tenant: The fairness domain.
        session_id: The session, unique within its tenant.
    """

    tenant: str
    session_id: str


Command = DeclareWorkflow | EndWorkflow | ToolStarted | ToolFinished | CloseSession

Outcome = Literal["accepted", "clipped", "unknown_session", "unknown_workflow", "rejected"]


class CommandOutcome(msgspec.Struct, frozen=True):
    """The effect of a command.

    Attributes:
        outcome: "accepted"; "clipped" if it was accepted with a smaller value; otherwise the reason
            why it changed nothing.
        reason: The same in words; may be "" for an accepted command.
    """

    outcome: Outcome
    reason: str = ""

    @property
    def is_applied(self) -> bool:
        """Whether the command was accepted, with or without a smaller value. Pure."""
        return self.outcome in ("accepted", "clipped")


def command_name(command: Command) -> str:
    """Name of a command's kind, for metrics and logs. Pure."""
    return str(command.__struct_config__.tag)


def session_group(tenant: str, session_id: str) -> str:
    """The session id, unique among tenants, as `Identity.group` has it. Pure."""
    return f"{bounded_name(tenant)}\x00{bounded_name(session_id)}"
