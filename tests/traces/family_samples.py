"""Sample families of files: a main agent, two sub-agents and a sub-sub-agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["FAMILIES", "Family"]

Family = dict[str, tuple[str, str | None, list[Any]]]
"""By the names of files: their session, their parent's file, and what they hold."""

_TIMES = [f"2026-01-05T10:00:{second:02d}.000Z" for second in range(60)]


def _claude_code() -> Family:
    def entry(kind: str, agent: str, number: int, content: Any, **fields: Any) -> dict[str, Any]:
        return {
            "type": kind,
            "uuid": f"{agent}{number}",
            "parentUuid": f"{agent}{number - 1}" if number else None,
            "sessionId": "s",
            "timestamp": _TIMES[number],
            "message": {"role": kind, "content": content, "id": f"{agent}{number}"},
        } | fields

    def lines(agent: str, *children: str) -> list[Any]:
        side = {"isSidechain": True, "agentId": agent} if agent else {}
        said = [entry("user", agent, 0, f"told {agent}", **side)]
        for child in children:
            task = {"prompt": f"told {child}", "subagent_type": "Explore"}
            call = {"type": "tool_use", "id": f"t{child}", "name": "Task", "input": task}
            back = {"type": "tool_result", "tool_use_id": f"t{child}", "content": "done"}
            said.append(entry("assistant", agent, len(said), [call], **side))
            said.append(
                entry("user", agent, len(said), [back], toolUseResult={"agentId": child}, **side)
            )
        return [*said, entry("assistant", agent, len(said), "over", **side)]

    return {
        "s.jsonl": ("s", None, lines("", "a", "b")),
        "agent-a.jsonl": ("s/a", "s.jsonl", lines("a", "c")),
        "agent-b.jsonl": ("s/b", "s.jsonl", lines("b")),
        "agent-c.jsonl": ("s/c", "agent-a.jsonl", lines("c")),
    }


def _codex() -> Family:
    def rollout(name: str, parent: str | None, *children: str) -> list[Any]:
        items: list[tuple[str, dict[str, Any]]] = [
            ("session_meta", {"id": name, "parent_thread_id": parent}),
            ("response_item", {"type": "message", "role": "user", "content": f"told {name}"}),
        ]
        for child in children:
            call = {"type": "function_call", "name": "spawn_agent", "call_id": child}
            given = {"type": "function_call_output", "call_id": child}
            started = msgspec.json.encode({"agent_id": child}).decode()
            items.append(("response_item", call | {"arguments": "{}"}))
            items.append(("response_item", given | {"output": started}))
        items.append(("response_item", {"type": "message", "role": "assistant", "content": "x"}))
        return [
            {"timestamp": _TIMES[number], "type": kind, "payload": payload}
            for number, (kind, payload) in enumerate(items)
        ]

    return {
        "rollout-3.jsonl": ("s", None, rollout("s", None, "a", "b")),
        "rollout-2.jsonl": ("a", "rollout-3.jsonl", rollout("a", "s", "c")),
        "rollout-1.jsonl": ("b", "rollout-3.jsonl", rollout("b", "s")),
        "rollout-0.jsonl": ("c", "rollout-2.jsonl", rollout("c", "a")),
    }


def _opencode() -> Family:
    def export(name: str, parent: str | None, *children: str) -> list[Any]:
        parts: list[dict[str, Any]] = [
            {
                "type": "tool",
                "tool": "task",
                "callID": child,
                "state": {
                    "status": "completed",
                    "metadata": {"sessionId": child},
                    "time": {"start": 1000, "end": 2000},
                },
            }
            for child in children
        ]
        asked = {"info": {"role": "user"}, "parts": [{"type": "text", "text": f"told {name}"}]}
        answer = {"info": {"role": "assistant"}, "parts": [*parts, {"type": "text", "text": "x"}]}
        return [{"info": {"id": name, "parentID": parent}, "messages": [asked, answer, answer]}]

    return {
        "s.json": ("s", None, export("s", None, "a", "b")),
        "a.json": ("a", "s.json", export("a", "s", "c")),
        "b.json": ("b", "s.json", export("b", "s")),
        "c.json": ("c", "a.json", export("c", "a")),
    }


def _atif() -> Family:
    def trajectory(name: str, *children: str) -> list[Any]:
        refs = [{"trajectory_path": f"{child}.json"} for child in children]
        steps = [
            {"source": "user", "message": f"told {name}"},
            {
                "source": "agent",
                "message": "x",
                "observation": {"results": [{"content": "x", "subagent_trajectory_ref": refs}]},
            },
            {"source": "agent", "message": "over"},
        ]
        agent = {"name": name}
        fields = {"schema_version": "ATIF-v1.7", "session_id": name, "trajectory_id": name}
        return [fields | {"agent": agent, "steps": steps}]

    return {
        "s.json": ("s", None, trajectory("s", "a", "b")),
        "a.json": ("s/a", "s.json", trajectory("a", "c")),
        "b.json": ("s/b", "s.json", trajectory("b")),
        "c.json": ("s/a/c", "a.json", trajectory("c")),
    }


def _gemini_cli() -> Family:
    def chat(name: str, *children: str) -> list[Any]:
        calls = [
            {"id": child, "name": "agent", "args": {}, "status": "success", "agentId": child}
            | {"result": "done", "timestamp": _TIMES[3]}
            for child in children
        ]
        said = {"id": "1", "type": "user", "timestamp": _TIMES[0], "content": f"told {name}"}
        answer = {"id": "2", "type": "gemini", "timestamp": _TIMES[1], "model": "m"}
        kind = "main" if name == "s" else "subagent"
        head = {"sessionId": name, "projectHash": "p", "kind": kind}
        over = answer | {"id": "3", "timestamp": _TIMES[5], "content": "over"}
        messages = [said, answer | {"toolCalls": calls, "content": "x"}, over]
        return [head | {"messages": messages}] if name == "b" else [head, *messages]

    return {
        "s.jsonl": ("s", None, chat("s", "a", "b")),
        "a.jsonl": ("a", "s.jsonl", chat("a", "c")),
        "b.json": ("b", "s.jsonl", chat("b")),
        "c.jsonl": ("c", "a.jsonl", chat("c")),
    }


FAMILIES: dict[str, Callable[[], Family]] = {
    "Claude Code": _claude_code,
    "Codex": _codex,
    "OpenCode": _opencode,
    "ATIF": _atif,
    "Gemini CLI": _gemini_cli,
}
