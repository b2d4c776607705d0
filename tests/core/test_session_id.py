"""Session ids from the headers of clients."""

from __future__ import annotations

import pytest

from holdfast.core.session_id import CLIENTS, parent_of, session_id_from, sub_agent_id

_SENT: dict[str, tuple[dict[str, str], str | None]] = {
    "claude code": ({"x-claude-code-session-id": "s"}, "s"),
    "claude code's sub-agent": (
        {"x-claude-code-session-id": "s", "x-claude-code-agent-id": "a"},
        "s/sub-agent/a",
    ),
    "codex": ({"session-id": "root", "thread-id": "root", "session_id": "old"}, "root"),
    "codex's sub-agent": (
        {"session-id": "root", "thread-id": "t", "x-codex-parent-thread-id": "root"},
        "root/sub-agent/t",
    ),
    "opencode": ({"x-session-id": "s", "x-session-affinity": "s"}, "s"),
    "opencode's sub-agent": (
        {"x-session-id": "t", "x-session-affinity": "t", "x-parent-session-id": "s"},
        "s/sub-agent/t",
    ),
    "openhands": ({"x-litellm-session-id": "s"}, "s"),
    "pi": ({"session_id": "s", "x-client-request-id": "s"}, "s"),
    "a gateway": ({"x-session-id": "s/sub-agent/t"}, "s/sub-agent/t"),
    "its own parent": ({"thread-id": "t", "x-codex-parent-thread-id": "t"}, "t"),
    "a root's id alone": ({"session-id": "root"}, None),
    "nothing": ({"user-agent": "curl"}, None),
    "an empty id": ({"thread-id": " ", "x-session-id": ""}, None),
}


@pytest.mark.parametrize(("headers", "session_id"), _SENT.values(), ids=_SENT)
def test_headers_name_one_stream(headers: dict[str, str], session_id: str | None) -> None:
    assert session_id_from(headers) == session_id


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.client)
def test_ids_of_a_client_differ_by_stream(client: object) -> None:
    assert hasattr(client, "stream") and hasattr(client, "agent")
    first, second = ({client.stream: name} for name in ("a", "b"))
    assert session_id_from(first) == "a" != session_id_from(second)


def test_ids_of_sub_agents_have_a_parent() -> None:
    assert parent_of(sub_agent_id("s", "a")) == "s"
    assert not any(map(parent_of, ("s", "/sub-agent/a", "s/sub-agent/", "sub-agent", "")))
