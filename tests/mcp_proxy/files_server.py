"""An MCP server with files, as its tools' annotations say; it logs each call that reaches it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("files")
READS = ToolAnnotations(read_only_hint=True)


def log(call: str) -> None:
    with Path(sys.argv[1]).open("a") as file:
        file.write(call + "\n")


@server.tool(annotations=READS)
def read_file(path: str) -> str:
    """Read a file."""
    log(f"read {Path(path).name}")
    return Path(path).read_text()


@server.tool()
def write_file(path: str, content: str) -> str:
    """Write a file."""
    log(f"write {Path(path).name}")
    Path(path).write_text(content)
    return "done"


@server.tool(annotations=READS)
def search_web(query: str) -> str:
    """Depends on the world."""
    log(f"search {query}")
    return f"nothing about {query}"


@server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))
def count_files(step: int) -> str:
    """Takes its time."""
    log(f"count {step}")
    time.sleep(0.2)
    return f"step {step}"


if __name__ == "__main__":
    server.run()
