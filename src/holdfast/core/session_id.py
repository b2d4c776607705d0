"""Names of streams that an agent started under one session id.

An id `PARENT/sub-agent/NAME` names a stream that the agent PARENT started. Gateways may send such
ids too.
"""

from __future__ import annotations

from typing import Final

__all__ = ["parent_of", "sub_agent_id"]

_SUB_AGENT: Final = "/sub-agent/"


def sub_agent_id(parent: str, name: str) -> str:
    """Return the id of a stream that the agent `parent` started. Pure."""
    return f"{parent}{_SUB_AGENT}{name}"


def parent_of(session_id: str) -> str | None:
    """Return the agent that started a stream, None if its id names none. Pure."""
    parent, found, name = session_id.partition(_SUB_AGENT)
    return parent if parent and found and name else None
