"""Tool calls that a real engine is made to write, judged between it and its client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.real_engines import MODEL, GatewayProcess, RealEngine, real_engines
from tests.gateway.test_forwarding import CHAT, post

pytestmark = [pytest.mark.engine, pytest.mark.server]

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
ASKED = [{"role": "user", "content": "What is the state of the repository?"}]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"command": {"type": "string", "enum": ["git status"]}},
    "required": ["command"],
    "additionalProperties": False,
}
FUNCTION = {"name": "bash", "description": "Runs a command.", "parameters": SCHEMA}
# Asking for a tool makes the grammar write a call; in whole messages it breaks off, as text.
REQUESTS: dict[str, dict[str, Any]] = {
    CHAT: {
        "messages": ASKED,
        "max_tokens": 64,
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "bash"}},
    },
    MESSAGES: {
        "messages": ASKED,
        "max_tokens": 64,
        "tools": [{"name": "bash", "description": "Runs.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
    },
    RESPONSES: {
        "input": "What is the state of the repository?",
        "max_output_tokens": 64,
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "bash"},
    },
}
RULES = """
[tool-rules]
repeats = 100

[[tool-rules.rules]]
name = "no-git"
action = "deny"
tool = "bash"
arguments = { command = '^git\\b' }
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    pytest.importorskip("vllm")
    with real_engines(tmp_path_factory.mktemp("engine"), "vllm-default") as (running,):
        yield running


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.toml"
    path.write_text(RULES)
    return path


def strings(value: object) -> Iterator[str]:
    """All texts of what an answer says; what it repeats of the request is left out."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in ("tools", "tool_choice"):
                yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


def said(text: bytes, *, is_stream: bool) -> str:
    if not is_stream:
        return "".join(strings(json.loads(text)))
    lines = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: {")]
    return "".join("".join(strings(json.loads(line))) for line in lines)


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", sorted(REQUESTS))
async def test_a_forced_call_does_not_reach_the_client(
    engine: RealEngine, rules: Path, tmp_path: Path, path: str, is_stream: bool
) -> None:
    body = {"model": MODEL, "temperature": 0, "stream": is_stream, **REQUESTS[path]}
    status, direct, _ = await post(engine.server.url, path, json=body)
    assert status == 200, direct
    assert "bash" in said(direct, is_stream=is_stream)
    audit = tmp_path / "audit.jsonl"
    options = ("--policies", str(rules), "--audit-log", str(audit))
    with GatewayProcess([engine], *options) as gateway:
        status, judged, _ = await post(gateway.url, path, json=body)
    told = said(judged, is_stream=is_stream)
    assert status == 200 and "not allowed (by no-git)" in told
    assert "bash" not in told and "git status" not in told and "status\\" not in told
    (line,) = audit.read_text().splitlines()
    record = json.loads(line)
    assert (record["tool"], record["rule"], record["verdict"]) == ("bash", "no-git", "deny")
