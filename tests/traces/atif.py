"""Builders of ATIF trajectories."""

from __future__ import annotations

from typing import Any

__all__ = ["agent", "step", "trajectory"]


def step(source: str, time_s: int | None = None, **fields: Any) -> dict[str, Any]:
    """Build a step at 10:00 and this second."""
    stamp = None if time_s is None else f"2026-01-05T10:{time_s // 60:02d}:{time_s % 60:02d}"
    return {"source": source, "message": f"{source} {time_s}", "timestamp": stamp} | fields


def agent(
    time_s: int | None,
    prompt: int | None = None,
    *tools: str,
    cached: int = 0,
    refs: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Build an agent's step with its usage, tool calls and results."""
    metrics = {"prompt_tokens": prompt, "completion_tokens": 30, "cached_tokens": cached}
    called = [
        {"tool_call_id": name, "function_name": name, "arguments": {"command": "npm test"}}
        for name in tools
    ]
    results = [
        {"source_call_id": name, "content": "done", "subagent_trajectory_ref": refs}
        for name in tools
    ]
    whole = {
        "metrics": metrics if prompt is not None else None,
        "tool_calls": called or None,
        "observation": {"results": results} if results else None,
    }
    return step("agent", time_s, **whole | fields)


def trajectory(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Build a document of these steps."""
    return {
        "schema_version": "ATIF-v1.7",
        "session_id": "s",
        "agent": {"name": "mini", "version": "1", "model_name": "m"},
        "steps": [{"step_id": index} | each for index, each in enumerate(steps, start=1)],
    } | fields
