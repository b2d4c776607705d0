"""The real command between MCP's own client and server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

SERVER = Path(__file__).with_name("files_server.py")
PROXY = ("-m", "holdfast", "mcp-proxy")


@asynccontextmanager
async def proxied(log: Path, *options: str) -> AsyncIterator[ClientSession]:
    """A session with the server, by way of the command."""
    arguments = [*PROXY, *options, "--", sys.executable, str(SERVER), str(log)]
    parameters = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    with (log.parent / "stderr").open("w") as errors:
        async with (
            stdio_client(parameters, errors) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            yield session


async def ask(session: ClientSession, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await session.call_tool(tool, arguments)
    return answer.model_dump(mode="json")


def old_file(path: Path, content: str) -> str:
    """A file that was not changed within the last second, by waiting for it."""
    path.write_text(content)
    time.sleep(1.05)
    return str(path)


def test_reads_are_answered_from_memory_until_a_change(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = old_file(tmp_path / "a.txt", "first")

    async def run() -> None:
        async with proxied(log) as session:
            await session.list_tools()
            answers = [await ask(session, "read_file", path=path) for _ in range(3)]
            assert answers[0] == answers[1] == answers[2]
            assert answers[0]["content"][0]["text"] == "first"
            await ask(session, "write_file", path=path, content="second")
            assert (await ask(session, "read_file", path=path))["content"][0]["text"] == "second"
            Path(path).write_text("third!")  # by someone else
            assert (await ask(session, "read_file", path=path))["content"][0]["text"] == "third!"
            for _ in range(2):
                await ask(session, "search_web", query="q")

    anyio.run(run)

    logged = log.read_text().splitlines()
    assert logged == [
        *("read a.txt", "write a.txt", "read a.txt", "read a.txt"),
        *("search q", "search q"),
    ]
    assert "answered 2 of 8 tool calls from memory" in (tmp_path / "stderr").read_text()


def test_nothing_is_remembered_of_tools_that_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = old_file(tmp_path / "a.txt", "first")

    async def run() -> None:
        async with proxied(log, "--never", "read_file", "--always", "search_web") as session:
            await session.list_tools()
            for _ in range(2):
                await ask(session, "read_file", path=path)
                await ask(session, "search_web", query="q")

    anyio.run(run)

    assert sorted(log.read_text().splitlines()) == ["read a.txt", "read a.txt", "search q"]


def test_server_that_ends_is_an_error_at_once(tmp_path: Path) -> None:
    arguments = [sys.executable, *PROXY, "--", sys.executable, "-c", "pass"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as proxy:
        assert proxy.stderr is not None
        assert "error: the MCP server has ended" in proxy.stderr.read().decode()
        assert proxy.wait(timeout=60) == 1


def test_url_without_a_server_is_an_error(tmp_path: Path) -> None:
    asked = '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}\n'
    arguments = [sys.executable, *PROXY, "--url", "http://127.0.0.1:1/mcp"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as proxy:
        assert proxy.stdin is not None
        proxy.stdin.write(asked)
        proxy.stdin.close()
        assert proxy.wait(timeout=60) == 2
        assert proxy.stderr is not None
        assert "http://127.0.0.1:1/mcp cannot be reached" in proxy.stderr.read()


def test_wrong_use_says_what_is_wrong(tmp_path: Path) -> None:
    policies = str(tmp_path / "policies.toml")
    Path(policies).write_text("")
    for options, error in (
        ((), "give either --url or a command"),
        (("--url", "http://127.0.0.1:1/mcp", "--", "x"), "give either --url or a command"),
        (("--", str(tmp_path / "missing")), "cannot be reached or started"),
        (("--ttl-s", "0", "--", "x"), "--ttl-s"),
        (("--policies", policies, "--speculate", "--", "x"), "--speculate and --policies"),
        (("--policies", policies, "--max-mib", "1", "--", "x"), "--max-mib and --policies"),
    ):
        ended = subprocess.run(
            [sys.executable, *PROXY, *options], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 2, ended.stderr
        assert error in ended.stderr
        assert "Traceback" not in ended.stderr
