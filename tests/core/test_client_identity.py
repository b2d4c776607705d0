"""Who sends a request, by the table of clients."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from holdfast.core.client_identity import ClientIdentity, identify
from holdfast.core.client_table import CLIENTS

Sent = tuple[dict[str, str], dict[str, Any]]

CLAUDE = {"user-agent": "claude-cli/2.1.332 (external, cli)", "x-claude-code-session-id": "s"}
USER = json.dumps({"device_id": "d", "session_id": "s"})
CODEX = {"user-agent": "codex_exec/0.171.0", "session-id": "root"}
OPENCODE = {"user-agent": "opencode/1.18.33", "x-session-affinity": "s"}
ENDPOINT = base64.b64encode(b"10.0.0.7:8000").decode()

STREAMS: dict[str, tuple[Sent, tuple[str, str | None, str | None]]] = {
    "claude code": ((CLAUDE, {}), ("Claude Code", "s", None)),
    "claude code's sub-agent": (
        (CLAUDE | {"x-claude-code-agent-id": "a"}, {}),
        ("Claude Code", "s/sub-agent/a", "s"),
    ),
    "claude code's sub-agent's sub-agent": (
        (CLAUDE | {"x-claude-code-agent-id": "b", "x-claude-code-parent-agent-id": "a"}, {}),
        ("Claude Code", "s/sub-agent/b", "s/sub-agent/a"),
    ),
    "claude code without headers": (
        ({}, {"metadata": {"user_id": USER}}),
        ("Claude Code", "s", None),
    ),
    "claude code before 2.1": (
        ({}, {"metadata": {"user_id": "user_1_account_2_session_0123-4567"}}),
        ("Claude Code", "0123-4567", None),
    ),
    "codex": (
        (CODEX | {"thread-id": "root"}, {"prompt_cache_key": "root"}),
        ("Codex CLI", "root", None),
    ),
    "codex's sub-agent": (
        (CODEX | {"thread-id": "t", "x-codex-parent-thread-id": "root"}, {}),
        ("Codex CLI", "t", "root"),
    ),
    "codex without headers": (
        ({}, {"client_metadata": {"thread_id": "t", "x-codex-parent-thread-id": "root"}}),
        ("Codex CLI", "t", "root"),
    ),
    "a root's id alone": ((CODEX, {}), ("Codex CLI", "root", None)),
    "opencode": ((OPENCODE | {"x-session-id": "s"}, {}), ("OpenCode", "s", None)),
    "opencode's sub-agent": (
        (OPENCODE | {"x-session-id": "t", "x-parent-session-id": "s"}, {}),
        ("OpenCode", "t", "s"),
    ),
    "opencode by llm-d": (
        ({"x-session-affinity": "t", "x-parent-session-id": "s"}, {}),
        ("llm-d, aiperf", "t", "s"),
    ),
    "openhands": (
        ({"x-litellm-session-id": "s"}, {"prompt_cache_key": "s"}),
        ("LiteLLM, OpenHands SDK", "s", None),
    ),
    "litellm's body": (({}, {"metadata": {"session_id": "s"}}), ("LiteLLM", "s", None)),
    "pi": (({"session_id": "s"}, {"prompt_cache_key": "s"}), ("pi, llm-d", "s", None)),
    "dynamo": (
        ({"x-dynamo-session-id": "s", "x-dynamo-parent-session-id": "p"}, {}),
        ("Dynamo", "s", "p"),
    ),
    "dynamo before 1.5": (({"x-dynamo-trajectory-id": "s"}, {}), ("Dynamo", "s", None)),
    "dynamo's body": (
        (
            {},
            {
                "nvext": {
                    "agent_context": {
                        "session_id": "s",
                        "trajectory_id": "t",
                        "parent_trajectory_id": "p",
                    }
                }
            },
        ),
        ("Dynamo", "t", "p"),
    ),
    "thunderagent": (({}, {"program_id": "s"}), ("ThunderAgent", "s", None)),
    "continuum": (({}, {"job_id": 7}), ("Continuum", "7", None)),
    "aiperf": (
        ({"user-agent": "aiperf/0.3", "x-correlation-id": "s"}, {}),
        ("aiperf", "s", None),
    ),
    "vllm's body": (({}, {"session_id": "s"}), ("vLLM, SGLang", "s", None)),
    "a gateway": (
        ({"x-session-id": "s/sub-agent/t"}, {}),
        ("vLLM, OpenCode", "s/sub-agent/t", None),
    ),
    "a gateway before a client": (
        (CLAUDE | {"x-holdfast-session-id": "g"}, {"session_id": "b"}),
        ("Claude Code", "g", None),
    ),
    "an application before a client": ((CLAUDE, {"session_id": "b"}), ("Claude Code", "b", None)),
    "its own parent": (
        ({"thread-id": "t", "x-codex-parent-thread-id": "t"}, {}),
        ("Codex CLI", "t", None),
    ),
}


@pytest.mark.parametrize(("sent", "expected"), STREAMS.values(), ids=STREAMS)
def test_a_request_names_one_stream(
    sent: Sent, expected: tuple[str, str | None, str | None]
) -> None:
    identity = identify(*sent)
    assert (identity.client, identity.session_id, identity.parent_session_id) == expected


NAMELESS: dict[str, Sent] = {
    "nothing": ({"user-agent": "curl"}, {}),
    "empty ids": ({"thread-id": " ", "x-session-id": ""}, {"session_id": ""}),
    "a user": ({}, {"user": "u"}),
    "a cache key of many": ({}, {"prompt_cache_key": "app"}),
    "a request's own id": ({"x-correlation-id": "r"}, {}),
    "a router's key": ({"x-smg-routing-key": "k"}, {}),
    "an endpoint of aibrix": ({"x-session-id": ENDPOINT}, {}),
    "control characters": ({"thread-id": "a\x00b"}, {"session_id": "a\nb"}),
    "half a character": ({}, {"session_id": "\ud83d"}),
    "values of other types": (
        {},
        {"session_id": [1], "metadata": "x", "nvext": {"agent_context": 1}},
    ),
    "a number too large": ({}, {"job_id": 1 << 300}),
    "text that is no json": ({}, {"metadata": {"user_id": "{"}}),
    "json too deep": ({}, {"metadata": {"user_id": "{" * 4000}}),
}


@pytest.mark.parametrize(("headers", "body"), NAMELESS.values(), ids=NAMELESS)
def test_a_request_names_no_stream(headers: dict[str, str], body: dict[str, Any]) -> None:
    assert identify(headers, body) == ClientIdentity()


def test_ids_of_different_clients_are_not_mixed() -> None:
    headers = CLAUDE | {"x-parent-session-id": "p", "x-codex-parent-thread-id": "q"}
    assert identify(headers).parent_session_id is None
    own = identify({"x-holdfast-session-id": "s", "x-parent-session-id": "p"})
    assert (own.session_id, own.parent_session_id) == ("s", None)


def test_own_agents_go_with_any_session() -> None:
    headers = CLAUDE | {"x-holdfast-agent-id": "writer", "x-holdfast-workflow-id": "w"}
    identity = identify(headers)
    assert (identity.session_id, identity.agent_id, identity.workflow_id) == ("s", "writer", "w")


def test_long_ids_are_bounded_and_differ() -> None:
    first, second = (identify({}, {"session_id": "x" * 9_999 + end}).session_id for end in "ab")
    assert first != second
    assert first is not None and len(first) < 100


@pytest.mark.parametrize(
    ("headers", "body", "is_final"),
    [
        ({"x-holdfast-session-final": "true"}, {}, True),
        ({"x-holdfast-session-final": "no"}, {}, False),
        ({"x-dynamo-session-id": "s", "x-dynamo-session-final": "True"}, {}, True),
        ({}, {"job_id": "j", "is_last_step": True}, True),
        ({}, {"is_last_step": True}, False),  # of no session
    ],
)
def test_the_last_turn_is_known(
    headers: dict[str, str], body: dict[str, Any], is_final: bool
) -> None:
    assert identify(headers, body).is_final is is_final


def test_announcements_of_own_headers_are_read() -> None:
    identity = identify({"x-holdfast-retain-s": "60", "x-holdfast-turn-end": "tool:Bash"})
    assert dict(identity.announced) == {"retain_s": "60", "turn_end": "tool:Bash"}


@pytest.mark.parametrize("headers", [CLAUDE, OPENCODE | {"x-session-id": "s"}])
def test_call_without_tools_is_beside_a_coding_agents(headers: dict[str, str]) -> None:
    title = identify(headers, {}, is_side_shape=True)
    assert title.is_side_call
    assert (title.session_id, title.parent_session_id) == (None, "s")
    assert not identify(headers, {}).is_side_call


@pytest.mark.parametrize("headers", [{}, {"x-session-id": "s"}, {"user-agent": "Agents/Python 1"}])
def test_agents_of_other_clients_may_have_no_tools(headers: dict[str, str]) -> None:
    assert not identify(headers, {}, is_side_shape=True).is_side_call


def test_headers_of_the_table_are_in_lower_case() -> None:
    for client in CLIENTS:
        for field in client.fields:
            assert field.where == "body" or field.field == field.field.lower()
