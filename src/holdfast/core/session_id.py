"""Explicit session ids from the headers that clients send, one id for each stream.

An id `PARENT/sub-agent/NAME` names a stream that the agent PARENT started. Gateways may send such
ids too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["CLIENTS", "ClientHeaders", "parent_of", "session_id_from", "sub_agent_id"]

_SUB_AGENT: Final = "/sub-agent/"


@dataclass(frozen=True, slots=True)
class ClientHeaders:
    """Headers of one client that identify a stream; names in lower case.

    Attributes:
        client: Name of the client, and the version that was observed.
        stream: Header with the stream, or with the agent whose sub-agents `agent` names.
        agent: Header with the sub-agent; "" where `stream` differs for each.
        parent: Header with the stream that started this one; "" if there is none.
    """

    client: str
    stream: str
    agent: str = ""
    parent: str = ""


CLIENTS: Final = (
    ClientHeaders("Claude Code 2.1", "x-claude-code-session-id", agent="x-claude-code-agent-id"),
    # Its `session-id` is the root's, on sub-agents as well.
    ClientHeaders("Codex CLI 0.171", "thread-id", parent="x-codex-parent-thread-id"),
    ClientHeaders("OpenCode 1.18", "x-session-id", parent="x-parent-session-id"),
    ClientHeaders("Dynamo 1.5", "x-dynamo-session-id", parent="x-dynamo-parent-session-id"),
    ClientHeaders("LiteLLM, OpenHands SDK 1.58", "x-litellm-session-id"),
    ClientHeaders("llm-d, OpenCode 1.18", "x-session-affinity"),
    ClientHeaders("pi 0.73", "session_id"),
)
"""In order of precedence: headers of clients before headers that proxies add."""


def session_id_from(headers: Mapping[str, str]) -> str | None:
    """Return the id of the stream that a request belongs to, None without one. Pure.

    Args:
        headers: By lower-case name. An `x-session-id` without the client's other headers is used
            unchanged.
    """
    for client in CLIENTS:
        stream = headers.get(client.stream, "").strip()
        if not stream:
            continue
        agent = headers.get(client.agent, "").strip() if client.agent else ""
        if agent:
            return sub_agent_id(stream, agent)
        parent = headers.get(client.parent, "").strip() if client.parent else ""
        return sub_agent_id(parent, stream) if parent and parent != stream else stream
    return None


def sub_agent_id(parent: str, name: str) -> str:
    """Return the id of a stream that the agent `parent` started. Pure."""
    return f"{parent}{_SUB_AGENT}{name}"


def parent_of(session_id: str) -> str | None:
    """Return the agent that started a stream, None if its id names none. Pure."""
    parent, found, name = session_id.partition(_SUB_AGENT)
    return parent if parent and found and name else None
