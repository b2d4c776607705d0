"""Real MCP servers, from PyPI and npm, through `holdfast mcp-proxy --speculate`.

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
from tests.live.clients import CLAUDE_CODE, installed, npm_command

from mcp_agent import ScriptedModel, run_agent

pytestmark = pytest.mark.live

_GIT = "mcp-server-git==2026.10.19"
_FILES = "@modelcontextprotocol/server-filesystem@2026.8.31"
_THINK_S = 1.2
_ROUNDS = 6

Calls = Sequence[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("git-server")
    venv.create(folder, with_pip=True)
    installed([str(folder / "bin" / "pip"), "install", "-q", _GIT])
    return [str(folder / "bin" / "mcp-server-git")]


@pytest.fixture(scope="module")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files-server")
    return [npm_command(_FILES, "mcp-server-filesystem", folder)]


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


async def agent_results(
    claude: str, folder: Path, calls: Calls, server: list[str], url: str
) -> list[str]:
    """What a live Claude Code sends its model, which asks for these calls, as their results."""

    async def ask(num_results: int) -> tuple[str, dict[str, Any]] | None:
        await anyio.sleep(_THINK_S)
        return calls[num_results] if num_results < len(calls) else None

    folder.mkdir()
    async with ScriptedModel(ask).running() as model:
        said = await run_agent(claude, model.url, folder, server, url)
    assert "All is well" in said
    return model.results


def test_claude_code_reads_through_the_proxy(
    git_server: list[str], repository: Path, tmp_path: Path
) -> None:
    claude = npm_command(CLAUDE_CODE, "claude", tmp_path)
    path = {"repo_path": str(repository)}
    calls: Calls = [("git_status", path), ("git_log", {**path, "max_count": 1})] * 3
    own = anyio.run(agent_results, claude, tmp_path / "own", calls, git_server, "")
    command = [sys.executable, "-m", "holdfast", "mcp-proxy", "--port", "0", "--", *git_server]
    # Or git writes its index when it is asked for the status, and nothing could be remembered.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as proxy:
        assert proxy.stdout is not None
        url = proxy.stdout.readline().split()[-1]
        try:
            got = anyio.run(agent_results, claude, tmp_path / "proxied", calls, git_server, url)
        finally:
            proxy.terminate()
            _, errors = proxy.communicate()
    assert got == own
    assert len(own) == len(calls)
    assert "answered 4 of 6" in errors, errors


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
