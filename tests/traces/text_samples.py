"""A sample file of each format with text; every text in it is `SECRET`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from tests.traces import client_samples

__all__ = ["SECRET", "TEXT_SAMPLES", "written"]

SECRET = "Xyzzy"
TIMES = [f"2026-01-05T10:00:{second:02d}.000Z" for second in range(30)]


def claude_code() -> list[Any]:
    def entry(kind: str, number: int, content: Any, **fields: Any) -> dict[str, Any]:
        message = {"role": kind, "content": content} | fields.pop("message", {})
        return {
            "type": kind,
            "uuid": f"u{number}",
            "parentUuid": f"u{number - 1}" if number else None,
            "sessionId": "s",
            "cwd": SECRET,
            "gitBranch": SECRET,
            "timestamp": TIMES[number],
            "message": message,
        } | fields

    task = {"prompt": SECRET, "subagent_type": "Explore", "description": SECRET}
    bash = {"command": f"cd {SECRET}; git log {SECRET}", "description": SECRET}
    used = {"usage": {"input_tokens": 700, "output_tokens": 9}, "model": "m", "stop_reason": None}
    calls = [
        {"type": "thinking", "thinking": SECRET, "signature": SECRET},
        {"type": "tool_use", "id": "t1", "name": "Task", "input": task},
        {"type": "tool_use", "id": "t2", "name": "Bash", "input": bash},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": SECRET, "is_error": True},
        {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": SECRET}]},
    ]
    return [
        {"type": "summary", "summary": SECRET, "leafUuid": "x"},
        entry("user", 0, SECRET),
        entry("assistant", 1, calls, message=used | {"id": "m1"}),
        entry("user", 2, results, toolUseResult={"agentId": "a", "content": SECRET}),
        entry("user", 3, SECRET, isSidechain=True, agentId="a"),
        entry("assistant", 4, SECRET, isSidechain=True, agentId="a", message=used),
        {"type": "attachment", "uuid": "u5", "parentUuid": "u2", "attachment": {"text": SECRET}},
        entry("assistant", 6, [{"type": "text", "text": SECRET}], message=used | {"id": "m2"}),
        {"type": "system", "uuid": "u7", "parentUuid": None, "content": SECRET},
        entry("user", 8, SECRET, isCompactSummary=True, isMeta=True),
        entry("assistant", 9, SECRET, message=used | {"id": "m3"}),
    ]


def codex() -> list[Any]:
    def line(kind: str, number: int, **payload: Any) -> dict[str, Any]:
        return {"timestamp": TIMES[number], "type": kind, "payload": payload}

    def text(role: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "text", "text": SECRET}]}

    def used(total: int) -> dict[str, Any]:
        return {"info": {"total_token_usage": {"input_tokens": total, "output_tokens": 5}}}

    command = msgspec.json.encode({"cmd": f"git log {SECRET}"}).decode()
    return [
        line("session_meta", 0, id="s", cwd=SECRET, instructions=SECRET, source="cli"),
        line("turn_context", 1, model="m", cwd=SECRET),
        line("response_item", 2, **text("user")),
        line("response_item", 3, type="reasoning", summary=[SECRET], encrypted_content=SECRET),
        line("response_item", 4, type="function_call", name="exec", call_id="c", arguments=command),
        line("response_item", 4, type="local_shell_call", action={"command": ["ls", SECRET]}),
        line("event_msg", 5, type="token_count", **used(700)),
        line("response_item", 6, type="function_call_output", call_id="c", output=SECRET),
        line("response_item", 7, **text("assistant")),
        line("event_msg", 8, type="agent_message", message=SECRET),
        line("event_msg", 8, type="user_message", message=SECRET),
        line("event_msg", 8, type="thread_rolled_back", num_turns=1),
        line("event_msg", 8, type="collab_agent_spawn_end", new_thread_id=SECRET, prompt=SECRET),
        line("event_msg", 8, type="collab_waiting_end", statuses={SECRET: {"completed": SECRET}}),
        line("compacted", 9, message=SECRET, replacement_history=[text("user")]),
        line("response_item", 10, **text("assistant")),
    ]


def otlp() -> list[Any]:
    def attribute(name: str, value: dict[str, Any]) -> dict[str, Any]:
        return {"key": f"gen_ai.{name}", "value": value}

    part = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": SECRET}}]}}
    parts = [{"key": "parts", "value": {"arrayValue": {"values": [part]}}}]
    message = {"arrayValue": {"values": [{"kvlistValue": {"values": parts}}]}}
    span = {
        "traceId": "t",
        "spanId": "s",
        "name": SECRET,
        "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "2000000000",
        "attributes": [
            attribute("operation.name", {"stringValue": "chat"}),
            attribute("usage.input_tokens", {"intValue": "700"}),
            attribute("input.messages", message),
            attribute("system_instructions", {"stringValue": SECRET}),
        ],
    }
    return [{"resourceSpans": [{"scopeSpans": [{"spans": [span, span | {"spanId": "r"}]}]}]}] * 2


def spans() -> list[Any]:
    arguments = {"command": f"git log {SECRET}"}
    output = [{"role": "assistant", "tool_calls": [{"name": "bash", "arguments": arguments}]}]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": msgspec.json.encode(
            [{"role": "user", "content": SECRET}]
        ).decode(),
        "gen_ai.output.messages": output,
        "gen_ai.tool.definitions": [{"description": SECRET}],
    }
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"}
    span = {"trace_id": "t", "start_time": TIMES[0], "end_time": TIMES[9], "name": SECRET}
    return [
        {
            "spans": [
                span | {"span_id": "A", "attributes": agent},
                span | {"span_id": "B", "parent_span_id": "A", "attributes": agent},
                span | {"span_id": "1", "parent_span_id": "A", "attributes": attributes},
                span | {"span_id": "2", "parent_span_id": "B", "attributes": attributes},
            ]
        }
    ]


def opencode() -> list[Any]:
    state = {
        "input": {"command": f"git log {SECRET}"},
        "output": SECRET,
        "error": SECRET,
        "title": SECRET,
        "metadata": {"sessionId": SECRET, "preview": SECRET},
        "time": {"start": 1000, "end": 2000},
    }
    parts = [
        {"type": "step-start", "snapshot": SECRET},
        {"type": "reasoning", "text": SECRET, "time": {"start": 5, "end": 6}},
        {"type": "tool", "callID": "c", "tool": "bash", "state": state},
        {"type": "tool", "callID": "d", "tool": "task", "state": state},
        {"type": "step-finish", "reason": "tool-calls", "tokens": {"input": 700, "output": 5}},
    ]
    asked = [{"type": "text", "text": SECRET}, {"type": "file", "mime": "a/b", "url": SECRET}]
    info = {"role": "assistant", "time": {"created": 500}, "modelID": "m", "path": {"cwd": SECRET}}
    return [
        {
            "info": {"id": "s", "title": SECRET, "directory": SECRET},
            "messages": [
                {"info": {"role": "user", "time": {"created": 1}}, "parts": asked},
                {"info": info, "parts": parts},
                {"info": info | {"summary": True}, "parts": parts},
            ],
        }
    ]


def atif() -> list[Any]:
    call = {"tool_call_id": "c", "function_name": "bash", "arguments": {"command": f"ls {SECRET}"}}
    refs = [{"trajectory_id": "x", "trajectory_path": SECRET}]
    result = {"source_call_id": "c", "content": SECRET, "subagent_trajectory_ref": refs}
    steps = [
        {"step_id": 1, "source": "system", "message": SECRET, "timestamp": TIMES[0]},
        {"step_id": 2, "source": "user", "message": [{"type": "text", "text": SECRET}]},
        {
            "step_id": 3,
            "source": "agent",
            "message": SECRET,
            "reasoning_content": SECRET,
            "timestamp": TIMES[2],
            "tool_calls": [call],
            "observation": {"results": [result]},
            "metrics": {"prompt_tokens": 700, "cached_tokens": 64},
        },
    ]
    document = {
        "schema_version": "ATIF-v1.7",
        "session_id": "s",
        "agent": {"name": "a", "version": "1", "tool_definitions": [{"description": SECRET}]},
        "steps": steps,
        "notes": SECRET,
        "continued_trajectory_ref": SECRET,
    }
    return [document | {"subagent_trajectories": [document | {"trajectory_id": "x"}]}]


TEXT_SAMPLES: dict[str, tuple[str, Callable[[], list[Any]]]] = {
    "Claude Code": ("jsonl", claude_code),
    "Codex": ("jsonl", codex),
    "OpenTelemetry lines": ("jsonl", otlp),
    "OpenTelemetry": ("json", spans),
    "OpenCode": ("json", opencode),
    "ATIF": ("json", atif),
    "Codex lines": ("jsonl", client_samples.codex_bare),
    "Codex 2": ("json", client_samples.codex_document),
    "Gemini CLI": ("json", client_samples.gemini_cli),
    "Gemini CLI lines": ("jsonl", client_samples.gemini_cli_lines),
    "Qwen Code": ("jsonl", client_samples.qwen_code),
    "pi": ("jsonl", client_samples.pi),
    "Cline": ("json", client_samples.cline),
    "mini-swe-agent": ("json", client_samples.mini_swe_agent),
}


def written(values: list[Any]) -> bytes:
    """Return the values as JSON, one a line."""
    return b"\n".join(map(msgspec.json.encode, values))
