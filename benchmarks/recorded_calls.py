"""Recorded requests of clients, and how they are sent again.

Files are `NAME.jsonl.xz`, a call a line: label, script, t, t_end, path, headers, body, calls,
answer.
"""

from __future__ import annotations

import asyncio
import json
import lzma
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "LENGTHS",
    "Call",
    "calls_of",
    "client_of",
    "in_recorded_order",
    "is_side_call",
    "model_of",
    "passed_headers",
    "scripted_body",
    "scripts_of",
    "stream_of",
]

T = TypeVar("T")
Call = dict[str, Any]

LEFT_OUT = {"host", "content-length", "authorization", "x-api-key", "accept-encoding"}
CLIENTS = {
    "aider": "aider 0.86.2",
    "cc": "Claude Code 2.1.332",
    "cco": "Claude Code 2.1.197",
    "cl": "Cline CLI 3.0.65",
    "cx": "Codex CLI 0.171.0",
    "ms": "mini-swe-agent 2.4.6",
    "oa": "openai-agents 0.24.0",
    "oc": "OpenCode 1.18.33",
    "oh": "OpenHands SDK 1.58.2",
    "gm": "Gemini CLI 0.61.0",
    "pi": "pi 0.73.1",
    "qw": "Qwen Code 0.24.4",
}
"""Clients by the beginning of a run's label."""
LENGTHS = {
    "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/chat/completions": "max_completion_tokens",
}
"""The field of an answer's length, by the endpoints that vLLM has."""


def calls_of(path: Path, *, others: str = "\0") -> list[Call]:
    """Recorded calls in order: those that vLLM has an endpoint for, and some others.

    Args:
        path: The file.
        others: Beginning of the paths of others.
    """
    with lzma.open(path, "rt", encoding="utf-8") as file:
        calls = [json.loads(line) for line in file]
    return sorted(
        (c for c in calls if c["path"] in LENGTHS or c["path"].startswith(others)),
        key=lambda call: call["t"],
    )


def client_of(call: Call) -> str:
    """Client and version, as far as the label tells."""
    prefix = call["label"].partition("-")[0]
    return CLIENTS.get(prefix) or str(prefix)


def model_of(call: Call) -> str:
    """The model that it asks for: in its body, or in Gemini's path."""
    named = call["body"].get("model") or call["path"].partition("/models/")[2].partition(":")[0]
    return str(named)


def is_side_call(call: Call) -> bool:
    """Whether it asks for a title or a commit message."""
    is_aiders = call["script"] == "aider" and len(call["body"]["messages"]) <= 2
    return is_aiders or (call["script"] == "side" and not call["body"].get("tools"))


def stream_of(call: Call, name: str) -> tuple[str, str]:
    """The true stream: an agent of one run; each side call and each tool's call is one."""
    if is_side_call(call) or call["script"] == "side":
        return call["label"], name
    return call["label"], "main" if call["script"] == "resume" else call["script"]


def scripts_of(model: Path, calls: Iterable[Call], *, has_thoughts: bool) -> list[list[int]]:
    """Token ids of the recorded answers, as the template would show them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    scripts = []
    for call in calls:
        text = "<think>\nLet me think.\n</think>\n\n" if has_thoughts else ""
        text += call["answer"] or ""
        for name, arguments in call["calls"] or ():
            function = json.dumps({"name": name, "arguments": arguments})
            text += f"\n<tool_call>\n{function}\n</tool_call>"
        encoding = tokenizer.encode(text + "<|im_end|>", add_special_tokens=False)
        scripts.append(list(encoding.ids))
    return scripts


async def in_recorded_order(calls: list[Call], send: Callable[[int], Awaitable[T]]) -> list[T]:
    """Send each call when all have ended that had ended when it was recorded.

    Args:
        calls: The calls, in order.
        send: Sends the call of a number.
    """
    ended = [asyncio.Event() for _ in calls]

    async def one(number: int) -> T:
        for other, event in zip(calls, ended, strict=True):
            if other["t_end"] <= calls[number]["t"]:
                await event.wait()
        try:
            return await send(number)
        finally:
            ended[number].set()

    return await asyncio.gather(*map(one, range(len(calls))))


def scripted_body(call: Call, script: list[int]) -> dict[str, Any]:
    """A call's body with which the engine answers a script."""
    body = dict(call["body"])
    body.pop("max_tokens", None)
    body |= {LENGTHS[call["path"]]: len(script), "vllm_xargs": {"scripted_output": script}}
    # Grammars would forbid the script; what Codex wants included vLLM does not know.
    for field in ("response_format", "text", "output_config", "tool_choice", "include"):
        body.pop(field, None)
    return body


def passed_headers(call: Call) -> dict[str, str]:
    """A call's headers without those of its connection, and without keys."""
    return {key: value for key, value in call["headers"] if key.lower() not in LEFT_OUT}
