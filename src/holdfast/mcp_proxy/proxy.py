"""Serves an MCP server's tools on standard input and output."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.stdio import stdio_server

from holdfast.mcp_proxy.file_stamp import stamp_files
from holdfast.mcp_proxy.relay import Relay, run_relay
from holdfast.mcp_proxy.result_memory import MemoryCounts, MemoryLimits, ResultMemory

__all__ = ["Ended", "serve_command", "serve_url"]


Ended = Callable[[MemoryCounts, bool], None]
"""Told what the memory did, and whether the client ended; where the server did, ends the process.

A thread waits for the client then, and nothing interrupts it.
"""


async def serve_command(command: Sequence[str], limits: MemoryLimits, ended: Ended) -> None:
    """Start a server, serve its tools until the client ends, and end it.

    It has this process's environment and directory.

    Raises:
        OSError: The command cannot be started.
    """
    program, *arguments = command
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    await _serve(stdio_client(parameters), limits, ended)


async def serve_url(url: str, limits: MemoryLimits, ended: Ended) -> None:
    """Serve a server reached by streamable HTTP, until the client ends."""
    await _serve(streamable_http_client(url), limits, ended)


async def _serve(
    server: AbstractAsyncContextManager[Any], limits: MemoryLimits, ended: Ended
) -> None:
    directory = Path.cwd()
    memory = ResultMemory(
        lambda arguments: stamp_files(arguments, directory), time.monotonic, _epoch_s, limits
    )
    async with server as to_server, stdio_server() as to_client:
        is_client_gone = await run_relay(to_client, to_server, Relay(memory))
        ended(memory.counts, is_client_gone)  # now: clients do not wait for the server's end


def _epoch_s() -> float:
    return time.time_ns() / 1e9
