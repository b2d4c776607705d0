"""A live Claude Code with a git server's tools, whose model answers by a script."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from aiohttp import web

__all__ = ["Ask", "ScriptedModel", "run_agent"]

SERVER = "git"
"""The MCP server's name; tools are `mcp__git__NAME` to the agent."""
LONGEST_RUN_S = 1800.0
Ask = Callable[[int], Awaitable[tuple[str, dict[str, Any]] | None]]
"""The call that comes after so many results: a tool's name and its arguments; None ends."""


class ScriptedModel:
    """Anthropic's Messages, streamed, by a script.

    Args:
        ask: Called once for each result; it may take as long as a model thinks.

    Attributes:
        url: Where it listens.
        waits_s: From each call's answer to the request with its result (s).
        results: The results, as JSON of what the agent sent.
        offered: Names of the tools that the agent offered at last.
    """

    def __init__(self, ask: Ask) -> None:
        self.url = ""
        self.waits_s: list[float] = []
        self.results: list[str] = []
        self.offered: frozenset[str] = frozenset()
        self._ask = ask
        self._answered_s: float | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedModel]:
        """Listen meanwhile."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/messages", self._message)
        app.router.add_post("/v1/messages/count_tokens", self._count)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _count(self, request: web.Request) -> web.Response:
        return web.json_response({"input_tokens": 1})

    async def _message(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        block: dict[str, Any] = {"type": "text", "text": "All is well."}
        names = frozenset(str(tool.get("name")) for tool in body.get("tools") or ())
        if names:  # else a title
            self._take(body, names)
            call = await self._ask(len(self.results))
            if call is not None:
                name = f"mcp__{SERVER}__{call[0]}"
                number = f"toolu_{len(self.results)}"
                block = {"type": "tool_use", "id": number, "name": name, "input": call[1]}
        return await _answer(request, body, block, self._note)

    def _take(self, body: dict[str, Any], names: frozenset[str]) -> None:
        """Keep the results that came, and how long they took."""
        self.offered = names
        results = [
            json.dumps(block.get("content"))
            for message in body["messages"]
            if isinstance(message["content"], list)
            for block in message["content"]
            if block.get("type") == "tool_result"
        ]
        if self._answered_s is not None and len(results) > len(self.results):
            self.waits_s.append(time.perf_counter() - self._answered_s)
        self.results = results

    def _note(self) -> None:
        self._answered_s = time.perf_counter()


async def _answer(
    request: web.Request, body: dict[str, Any], block: dict[str, Any], note: Callable[[], None]
) -> web.StreamResponse:
    """Send one block, as a stream if that was asked for."""
    is_call = block["type"] == "tool_use"
    end = {"stop_reason": "tool_use" if is_call else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    if not body.get("stream"):
        note()
        return web.json_response({**message, **end, "content": [block]})
    empty = {**block, "input": {}} if is_call else {**block, "text": ""}
    delta = {"type": "text_delta", "text": block.get("text")}
    if is_call:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for name, data in (
        ("message_start", {"message": message}),
        ("content_block_start", {"index": 0, "content_block": empty}),
        ("content_block_delta", {"index": 0, "delta": delta}),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": end, "usage": usage}),
        ("message_stop", {}),
    ):
        text = json.dumps({"type": name, **data})
        await response.write(f"event: {name}\ndata: {text}\n\n".encode())
    note()
    return response


async def run_agent(
    claude: str, model_url: str, folder: Path, server: Sequence[str], url: str
) -> str:
    """Run Claude Code once with one MCP server; returns what it printed.

    Args:
        claude: Its command.
        model_url: Of the model's endpoint.
        folder: Its home and its working directory; must exist.
        server: The MCP server's command.
        url: Of a proxy before it; "" for the server itself.

    Raises:
        subprocess.CalledProcessError: It failed.
        TimeoutError: It did not end.
    """
    own = {"command": server[0], "args": list(server[1:])}
    configured = {"mcpServers": {SERVER: {"type": "http", "url": url} if url else own}}
    arguments = [
        *(claude, "-p", "Call the tools that you are told to call."),
        *("--mcp-config", json.dumps(configured), "--strict-mcp-config"),
        *("--allowed-tools", f"mcp__{SERVER}"),
    ]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "scripted",
        "ANTHROPIC_SMALL_FAST_MODEL": "scripted",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "ENABLE_TOOL_SEARCH": "false",  # all tools are there from the first request on
    }
    with anyio.fail_after(LONGEST_RUN_S):
        done = await anyio.run_process(arguments, cwd=folder, env=environ)
    return done.stdout.decode()
