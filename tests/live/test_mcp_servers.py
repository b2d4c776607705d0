"""Real MCP servers, installed from PyPI and npm, through `holdfast mcp-proxy --speculate`.

Not among `make test`: each server is a download. `make explore` runs them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

pytestmark = pytest.mark.live

_GIT = "mcp-server-git==2026.10.19"
_FILES = "@modelcontextprotocol/server-filesystem@2026.8.31"
_INSTALL_S = 600
_THINK_S = 1.2
_ROUNDS = 6

Calls = Sequence[tuple[str, dict[str, Any]]]


def installed(command: Sequence[str]) -> None:
    """Run an installer; skips the test where it cannot."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"cannot be installed: {error}")
    if done.returncode:
        pytest.skip(f"cannot be installed: {done.stderr[-500:]}")


@pytest.fixture(scope="module")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("git-server")
    venv.create(folder, with_pip=True)
    installed([str(folder / "bin" / "pip"), "install", "-q", _GIT])
    return [str(folder / "bin" / "mcp-server-git")]


@pytest.fixture(scope="module")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files-server")
    installed(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", _FILES])
    return [str(folder / "node_modules" / ".bin" / "mcp-server-filesystem")]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("a.py", "b.py", "c.py"):
        (folder / name).write_text(f"name = {name!r}\n")
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run(["git", *who, *words], cwd=folder, check=True)
    return folder


async def play(command: Sequence[str], calls: Calls, errors: Path) -> list[list[dict[str, Any]]]:
    """The contents of answers, a list for each call."""
    program, *arguments = command
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    contents = []
    with errors.open("w") as file:
        async with stdio_client(parameters, file) as streams, ClientSession(*streams) as session:
            await session.initialize()
            await session.list_tools()
            for tool, given in calls:
                await anyio.sleep(_THINK_S)
                answer = await session.call_tool(tool, given)
                contents.append(answer.model_dump(mode="json")["content"])
    return contents


def check(server: Sequence[str], calls: Calls, folder: Path) -> tuple[int, int]:
    """Compare answers with the server's own; returns calls made early and those of them used."""
    errors = folder / "stderr"
    own = anyio.run(play, server, calls, errors)
    proxy = [sys.executable, "-m", "holdfast", "mcp-proxy", "--speculate", "--", *server]
    assert anyio.run(play, proxy, calls, errors) == own
    found = re.search(r"made (\d+) calls early: (\d+) were used, (\d+) ", errors.read_text())
    assert found is not None, errors.read_text()
    started, used, late = map(int, found.groups())
    return started, used + late


def test_git_server_answers_as_without_the_proxy(
    git_server: list[str], repository: Path, tmp_path: Path
) -> None:
    path = {"repo_path": str(repository)}
    round_: Calls = [
        ("git_status", path),
        ("git_diff_staged", path),
        ("git_log", {**path, "max_count": 1}),
        ("git_add", {**path, "files": ["."]}),
    ]
    started, used = check(git_server, list(round_) * _ROUNDS, tmp_path)
    assert 0 < used <= started


def test_files_server_answers_as_without_the_proxy(
    files_server: list[str], repository: Path, tmp_path: Path
) -> None:
    paths = {name: {"path": str(repository / name)} for name in ("a.py", "b.py", "c.py")}
    round_: Calls = [
        ("list_directory", {"path": str(repository)}),
        ("read_text_file", paths["a.py"]),
        ("read_text_file", paths["b.py"]),
        ("write_file", {**paths["c.py"], "content": "name = 'c.py'\n"}),
    ]
    check([*files_server, str(repository)], list(round_) * _ROUNDS, tmp_path)
