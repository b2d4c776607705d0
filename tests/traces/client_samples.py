"""Sample sessions of clients; see `text_samples`."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "cline",
    "codex_bare",
    "codex_document",
    "gemini_cli",
    "gemini_cli_lines",
    "mini_swe_agent",
    "pi",
    "qwen_code",
]

SECRET = "Xyzzy"
TIMES = [f"2026-01-05T10:00:{second:02d}.000Z" for second in range(30)]
_COMMAND = {"command": f"git log {SECRET}"}


def _gemini_messages() -> list[Any]:
    response = {"id": "c", "name": "run_shell_command", "response": {"output": SECRET}}
    call: dict[str, Any] = {"id": "c", "name": "run_shell_command", "args": _COMMAND}
    call |= {"status": "success", "result": [{"functionResponse": response}], "timestamp": TIMES[4]}
    error = {"id": "d", "name": "read_file", "args": {}, "status": "error", "agentId": "x"}
    tokens = {"input": 700, "output": 5, "cached": 64, "thoughts": 3, "tool": 0, "total": 708}
    thought = {"subject": SECRET, "description": SECRET, "timestamp": TIMES[1]}
    return [
        {"id": "1", "timestamp": TIMES[0], "type": "user", "content": SECRET},
        {"id": "2", "timestamp": TIMES[0], "type": "info", "content": SECRET},
        {
            "id": "3",
            "timestamp": TIMES[3],
            "type": "gemini",
            "content": [{"text": SECRET}, {"functionCall": {"id": "e", "name": "f", "args": {}}}],
            "toolCalls": [call, error],
            "thoughts": [thought],
            "tokens": tokens,
            "model": "m",
        },
        {"id": "4", "timestamp": TIMES[5], "type": "user", "content": [{"text": SECRET}]},
        {"id": "5", "timestamp": TIMES[6], "type": "gemini", "content": SECRET, "model": "m"},
        {"id": "6", "timestamp": TIMES[7], "type": "gemini", "content": SECRET},
    ]


def gemini_cli() -> list[Any]:
    head = {"sessionId": "s", "projectHash": SECRET, "startTime": TIMES[0], "summary": SECRET}
    return [head | {"messages": _gemini_messages()}]


def gemini_cli_lines() -> list[Any]:
    said = _gemini_messages()
    summary = [{"id": "9", "timestamp": TIMES[8], "type": "user", "content": [{"text": SECRET}]}]
    return [
        {"sessionId": "s", "projectHash": SECRET, "startTime": TIMES[0], "kind": "main"},
        *said[:3],
        {"$set": {"lastUpdated": TIMES[4], "summary": SECRET}},
        *said[2:],
        {"$rewindTo": "4"},
        said[3] | {"id": "7"},
        said[4] | {"id": "8"},
        {"$set": {"messages": summary}},
        said[4] | {"id": "10"},
    ]


def qwen_code() -> list[Any]:
    def record(kind: str, number: int, *parts: Any, **fields: Any) -> dict[str, Any]:
        return {
            "uuid": f"u{number}",
            "parentUuid": f"u{number - 1}" if number else None,
            "sessionId": "s",
            "timestamp": TIMES[number],
            "type": kind,
            "cwd": SECRET,
            "version": "1",
            "message": {"role": "model" if kind == "assistant" else "user", "parts": parts},
        } | fields

    def beside(number: int, subtype: str, **payload: Any) -> dict[str, Any]:
        return record("system", number, subtype=subtype, systemPayload=payload)

    used = {"promptTokenCount": 700, "candidatesTokenCount": 5, "cachedContentTokenCount": 64}
    used |= {"thoughtsTokenCount": 2, "totalTokenCount": 705}
    text = {"text": SECRET}
    call = {"functionCall": {"id": "c", "name": "run_shell_command", "args": _COMMAND}}
    response = {"functionResponse": {"id": "c", "name": "x", "response": {"output": SECRET}}}
    thought = {"text": SECRET, "thought": True}
    return [
        record("user", 0, text),
        beside(1, "ui_telemetry", uiEvent={"text": SECRET}),
        record("assistant", 2, thought, call, model="m", usageMetadata=used),
        record("tool_result", 3, response, toolCallResult={"status": "success", "x": SECRET}),
        record("assistant", 4, text, model="m", usageMetadata=used),
        beside(5, "rewind", truncatedCount=1) | {"parentUuid": None},
        record("user", 6, text),
        record("assistant", 7, text, model="m"),
        beside(8, "chat_compression", compressedHistory=[{"role": "user", "parts": [text]}]),
        record("user", 9, text, {"inlineData": {"mimeType": "a/b", "data": SECRET}}),
        record("assistant", 10, text, model="m", usageMetadata=used),
    ]


def pi() -> list[Any]:
    def entry(kind: str, number: int, **fields: Any) -> dict[str, Any]:
        parent = f"e{number - 1}" if number else None
        return {"type": kind, "id": f"e{number}", "parentId": parent} | (
            {"timestamp": TIMES[number]} | fields
        )

    def message(number: int, role: str, *content: Any, **fields: Any) -> dict[str, Any]:
        said = {"role": role, "content": content, "timestamp": 1767607200000} | fields
        return entry("message", number, message=said)

    def answer(number: int, *content: Any, **fields: Any) -> dict[str, Any]:
        usage = {"input": 600, "output": 5, "cacheRead": 64, "cacheWrite": 36}
        told = {"provider": "p", "model": "m", "usage": usage, "stopReason": "stop"}
        return message(number, "assistant", *content, **(told | fields))

    text = {"type": "text", "text": SECRET}
    call = {"type": "toolCall", "id": "c", "name": "bash", "arguments": _COMMAND}
    thought = {"type": "thinking", "thinking": SECRET}
    image = {"type": "image", "data": SECRET, "mimeType": "image/png"}
    shell = {"role": "bashExecution", "command": SECRET, "output": SECRET, "exitCode": 0}
    return [
        {"type": "session", "version": 3, "id": "s", "timestamp": TIMES[0], "cwd": SECRET},
        entry("model_change", 0, provider="p", modelId="m"),
        message(1, "user", text, image),
        answer(2, thought, call, stopReason="toolUse"),
        message(3, "toolResult", text, toolCallId="c", toolName="bash", isError=False),
        answer(4, stopReason="error", errorMessage=SECRET, usage={"input": 0}),
        answer(5, text),
        entry("message", 6, message=shell),
        entry("custom_message", 7, customType="x", content=SECRET, display=True),
        entry("compaction", 8, summary=SECRET, firstKeptEntryId="e5", tokensBefore=700),
        answer(9, text),
        entry("branch_summary", 10, summary=SECRET, fromId="e9") | {"parentId": "e5"},
        answer(11, text, stopReason="aborted"),
    ]


def _items() -> list[Any]:
    def text(role: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "text", "text": SECRET}]}

    arguments = msgspec.json.encode({"command": ["bash", "-lc", f"git log {SECRET}"]}).decode()
    return [
        text("user"),
        {"type": "reasoning", "id": "r", "summary": [SECRET], "encrypted_content": SECRET},
        {"type": "function_call", "name": "shell", "call_id": "c", "arguments": arguments},
        {"type": "function_call_output", "call_id": "c", "output": SECRET},
        text("assistant"),
    ]


def codex_bare() -> list[Any]:
    head = {"id": "s", "timestamp": TIMES[0], "instructions": SECRET, "git": {"branch": SECRET}}
    return [head, {"record_type": "state"}, *_items()]


def codex_document() -> list[Any]:
    session = {"id": "s", "timestamp": TIMES[0], "instructions": SECRET}
    return [{"session": session, "items": _items()}]


def cline() -> list[Any]:
    metrics = {"inputTokens": 700, "outputTokens": 5, "cacheReadTokens": 64, "cacheWriteTokens": 0}
    told = {"role": "assistant", "modelInfo": {"id": "m", "provider": "p"}, "metrics": metrics}
    text = {"type": "text", "text": SECRET}
    file = {"type": "file", "path": SECRET, "content": SECRET}
    thought = {"type": "thinking", "thinking": SECRET}
    scripts = {"commands": [f"git log {SECRET}", SECRET]}
    call = {"type": "tool_use", "id": "c", "name": "run_commands", "input": scripts}
    result = {"type": "tool_result", "tool_use_id": "c", "content": SECRET, "is_error": False}
    said = [
        {"role": "user", "content": [text, file, {"type": "image", "data": SECRET}], "ts": 1000},
        told | {"content": [thought, text, call, call | {"id": "d", "input": SECRET}], "ts": 5000},
        {"role": "user", "content": [result], "ts": 6000},
        told | {"content": [text], "ts": 9000},
    ]
    head = {"version": 1, "agent": "lead", "sessionId": "s", "system_prompt": SECRET}
    return [head | {"updated_at": TIMES[9], "messages": said}]


def mini_swe_agent() -> list[Any]:
    usage: dict[str, Any] = {"prompt_tokens": 700, "completion_tokens": 5}
    usage |= {"prompt_tokens_details": {"cached_tokens": 64}}
    extra = {"actions": [_COMMAND | {"tool_call_id": "c"}], "timestamp": 1767607202.5}
    call = {"id": "c", "function": {"name": "bash", "arguments": SECRET}}
    return [
        {
            "info": {"submission": SECRET, "config": {"model": {"model_name": "m"}}},
            "trajectory_format": "mini-swe-agent-1.1",
            "messages": [
                {"role": "system", "content": SECRET},
                {"role": "user", "content": [{"type": "text", "text": SECRET}]},
                {
                    "role": "assistant",
                    "content": SECRET,
                    "tool_calls": [call],
                    "extra": extra | {"response": {"usage": usage, "choices": [SECRET]}},
                },
                {
                    "role": "tool",
                    "tool_call_id": "c",
                    "content": SECRET,
                    "extra": {"returncode": 1, "timestamp": 1767607203.0, "raw_output": SECRET},
                },
                {"role": "assistant", "content": f"```bash\ngit log {SECRET}\n```"},
                {"role": "assistant", "content": SECRET},
                {"role": "user", "content": SECRET, "extra": {"response": {"usage": usage}}},
                {"role": "exit", "content": SECRET},
            ],
        }
    ]
