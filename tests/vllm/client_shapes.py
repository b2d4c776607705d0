"""Requests in the shape of each client, and what the scheduler is told of them."""

from __future__ import annotations

from typing import Any

__all__ = ["CHAT", "CODEX", "COMPLETIONS", "MESSAGES", "REQUESTS", "RESPONSES", "SAY"]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
MESSAGES_TOOL = {"name": "look", "input_schema": {"type": "object"}}
RESPONSES_TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
SAY = [{"role": "user", "content": "Look at the file, please."}]
CLAUDE = {"user-agent": "claude-cli/2.1.9 (external, cli)", "x-claude-code-session-id": "cc"}
CODEX = {"user-agent": "codex_exec/0.171.0", "session-id": "cx", "thread-id": "cx"}
OPENCODE = {"user-agent": "opencode/1.18.33", "x-session-id": "oc", "x-session-affinity": "oc"}

# Of each: path, headers, body; then client, session, parent, whether it is a side call.
REQUESTS: dict[str, tuple[str, dict[str, str], dict[str, Any], tuple[Any, ...]]] = {
    "claude code": (
        MESSAGES,
        CLAUDE,
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "cc", None, False),
    ),
    "claude code's sub-agent": (
        MESSAGES,
        CLAUDE | {"x-claude-code-agent-id": "a1"},
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "cc/sub-agent/a1", "cc", False),
    ),
    "claude code's title": (
        MESSAGES,
        CLAUDE,
        {"messages": SAY, "tools": [], "metadata": {"user_id": '{"session_id": "cc"}'}},
        ("Claude Code", None, "cc", True),
    ),
    "codex": (
        RESPONSES,
        CODEX,
        {"input": SAY, "tools": [RESPONSES_TOOL], "prompt_cache_key": "cx", "store": False},
        ("Codex CLI", "cx", None, False),
    ),
    "codex's sub-agent": (
        RESPONSES,
        CODEX | {"thread-id": "cx1", "x-codex-parent-thread-id": "cx"},
        {"input": SAY, "tools": [RESPONSES_TOOL], "prompt_cache_key": "cx", "store": False},
        ("Codex CLI", "cx1", "cx", False),
    ),
    "opencode": (
        CHAT,
        OPENCODE,
        {"messages": SAY, "tools": [TOOL]},
        ("OpenCode", "oc", None, False),
    ),
    "opencode's sub-agent": (
        CHAT,
        OPENCODE | {"x-session-id": "oc1", "x-parent-session-id": "oc"},
        {"messages": SAY, "tools": [TOOL]},
        ("OpenCode", "oc1", "oc", False),
    ),
    "opencode's title": (CHAT, OPENCODE, {"messages": SAY}, ("OpenCode", None, "oc", True)),
    "pi": (
        RESPONSES,
        {"session_id": "pi", "x-client-request-id": "pi"},
        {"input": SAY, "prompt_cache_key": "pi"},
        ("pi, llm-d", "pi", None, False),
    ),
    "openhands": (
        CHAT,
        {"x-litellm-session-id": "oh"},
        {"messages": SAY, "tools": [TOOL], "prompt_cache_key": "oh"},
        ("LiteLLM, OpenHands SDK", "oh", None, False),
    ),
    "qwen code": (
        CHAT,
        {"user-agent": "QwenCode/0.24.4 (linux; x64)"},
        {"messages": SAY, "tools": [TOOL]},
        ("Qwen Code", None, None, False),
    ),
    "dynamo's body": (
        COMPLETIONS,
        {},
        {"prompt": "x", "nvext": {"agent_context": {"trajectory_id": "d"}}},
        ("Dynamo", "d", None, False),
    ),
    "thunderagent": (
        COMPLETIONS,
        {},
        {"prompt": "x", "program_id": "ta"},
        ("ThunderAgent", "ta", None, False),
    ),
    "a gateway": (
        MESSAGES,
        CLAUDE | {"X-Holdfast-Session-ID": "g1", "X-Holdfast-Parent-Session-ID": "g"},
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "g1", "g", False),
    ),
    "an endpoint of aibrix": (
        CHAT,
        {"x-session-id": "MTAuMC4wLjc6ODAwMA=="},
        {"messages": SAY},
        ("", None, None, False),
    ),
}
