"""Which calls are one agent's."""

from __future__ import annotations

from holdfast.core.agents import AgentKey
from holdfast.core.identity import ANONYMOUS, Identity

WRITER = Identity(agent_id="writer", workflow_id="w1", tenant="alice")


def test_agent_id_goes_before_the_fixed_prefix() -> None:
    key = AgentKey.of(WRITER, b"prefix")
    assert key == AgentKey("alice", agent_id="writer")
    assert key is not None and key.is_explicit


def test_agent_id_names_one_agent_in_all_workflows() -> None:
    other = Identity(agent_id="writer", workflow_id="w2", tenant="alice")
    assert AgentKey.of(WRITER, b"a") == AgentKey.of(other, b"b")


def test_agents_of_two_tenants_are_never_the_same() -> None:
    bob = Identity(agent_id="writer", tenant="bob")
    assert AgentKey.of(WRITER, None) != AgentKey.of(bob, None)
    assert AgentKey.of(Identity(tenant="a"), b"x") != AgentKey.of(Identity(tenant="b"), b"x")


def test_fixed_prefix_identifies_an_agent_without_an_id() -> None:
    key = AgentKey.of(ANONYMOUS, b"prefix")
    assert key == AgentKey("", fingerprint=b"prefix")
    assert key is not None and not key.is_explicit
    assert AgentKey.of(ANONYMOUS, b"other") != key


def test_id_is_never_taken_for_a_fingerprint() -> None:
    assert AgentKey.of(Identity(agent_id="x"), None) != AgentKey.of(ANONYMOUS, b"x")


def test_prompt_without_id_and_prefix_has_no_agent() -> None:
    assert AgentKey.of(ANONYMOUS, None) is None
