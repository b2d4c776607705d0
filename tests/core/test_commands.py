"""Commands as data: names, encoding, and the id under which the runtime knows a session."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.commands import (
    CloseSession,
    Command,
    CommandOutcome,
    DeclareWorkflow,
    EndWorkflow,
    Outcome,
    ToolFinished,
    ToolStarted,
    command_name,
    session_group,
)
from holdfast.core.identity import Identity
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph

COMMANDS: dict[str, Command] = {
    "declare_workflow": DeclareWorkflow("t", "w", WorkflowGraph((AgentStep("a"),))),
    "end_workflow": EndWorkflow("t", "w"),
    "tool_started": ToolStarted("t", "s", "Bash", 2.5),
    "tool_finished": ToolFinished("t", "s"),
    "close_session": CloseSession("t", "s"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_survives_encoding_under_its_name(name: str) -> None:
    command = COMMANDS[name]
    assert command_name(command) == name
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=Command) == command


def test_a_command_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        COMMANDS["tool_started"].tenant = "other"  # type: ignore[misc]


@given(st.text(), st.text(min_size=1))
def test_short_ids_are_those_of_requests(tenant: str, session_id: str) -> None:
    identity = Identity(session_id=session_id, tenant=tenant)
    assert session_group(tenant, session_id) == identity.group


def test_long_ids_are_digests() -> None:
    assert len(session_group("t" * 10_000, "s" * 10_000)) < 200


@pytest.mark.parametrize(
    ("outcome", "is_applied"),
    [("accepted", True), ("clipped", True), ("unknown_session", False), ("rejected", False)],
)
def test_outcomes_say_whether_a_command_applies(outcome: Outcome, is_applied: bool) -> None:
    assert CommandOutcome(outcome).is_applied == is_applied
