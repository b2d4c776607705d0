"""Tells an engine what a request belongs to: session, agent, tool, workflow.

    from holdfast.client import agent, attach, session, tool

    client = attach(OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none"))
    with session():
        client.chat.completions.create(...)  # a turn of the session
        with tool("bash", expected_s=30):
            run_tests()  # the session's cache stays warm for about this long
        with agent("reviewer"):
            client.chat.completions.create(...)  # a sub-agent's session, with its parent

Blocks nest, follow `asyncio` tasks and raise only for wrong arguments. Importing this package
loads the standard library only. `docs/sdk.md` has the rest.
"""

from __future__ import annotations

from holdfast.client.attach import attach
from holdfast.client.blocks import agent, expect, session, tool, workflow
from holdfast.client.control import flush
from holdfast.client.identity import extra_body, headers
from holdfast.client.session import Session
from holdfast.client.workflow import StepGraph, Workflow

__all__ = [
    "Session",
    "StepGraph",
    "Workflow",
    "agent",
    "attach",
    "expect",
    "extra_body",
    "flush",
    "headers",
    "session",
    "tool",
    "workflow",
]
