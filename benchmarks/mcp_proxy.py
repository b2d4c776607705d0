"""What memory and early calls of `holdfast mcp-proxy` save before a real MCP server.

python benchmarks/mcp_proxy.py [--server COMMAND] [--transcripts DIR] [--sessions N]
                               [--agent COMMAND] [--workload NAME …] [--output DIR]

COMMAND is `mcp-server-git` of PyPI, which works on a repository made here. Three workloads:

- `recorded`: the git commands of coding agents, from transcripts of Claude Code in DIR, as calls of
  the server's tools. Revisions and branches are replaced by the repository's, equal ones by equal
  ones. The agent's own edits change files beside the proxy. Pauses are the recorded ones, cut to
  half a second, or to 1.1 s after an edit.
- `scripted review`: every session is the same six reads, but for a revision that the log lists.
- `writes between reads`: a change of the index comes between all reads; no result holds.

Each is played four times at once: to the server itself, through the proxy without policies, through
the proxy, and through the proxy with `--speculate`. What is compared is the time that the client
waits for answers. `distant` has each message of the server take a tenth of a second in each
direction.

COMMAND of `--agent` is Claude Code, which then makes the calls: one run of it a session, its model
being a script that says which call comes next. Its results are `mcp_agent.*`, and the waits have
the agent's own work between a call and the next request in them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from holdfast.report.manifest import run_manifest
from mcp_agent import ScriptedModel, run_agent
from mcp_sessions import AFTER_EDIT_S, MAX_PAUSE_S, Step, recorded

DISTANT = Path(__file__).with_name("distant_server.py")
DISTANCE_S = 0.1
MODES = ("server alone", "no policies", "memory", "memory and early calls")
READS = frozenset(
    f"git_{name}"
    for name in ("status", "diff_unstaged", "diff_staged", "diff", "log", "show", "branch")
)
COLUMNS = (
    *("workload", "set", "through", "calls", "reads", "from memory", "made early", "used", "late"),
    *("hit ratio", "wasted, s", "waited for reads, s", "waited for others, s"),
)
MIN_CALLS = 6
NUM_SETS = 3
NUM_COMMITS = 30
NUM_FILES = 40
SUMMARY = (
    re.compile(r"answered (?P<answered>\d+) of .* saved (?P<memory_s>[\d.]+) s;"),
    re.compile(
        r"made (?P<started>\d+) calls early: (?P<used>\d+) were used, (?P<late>\d+) were asked .*"
        r" (?P<wasted>\d+) were wasted; clients waited (?P<early_s>[\d.]+) s less, .* worked "
        r"(?P<wasted_s>[\d.]+) s"
    ),
)


Plan = list[list[Step]]
"""Steps by session."""


@dataclass(slots=True)
class Played:
    """One set of sessions in one mode: calls (count), waits (s), and the proxy's own summary."""

    workload: str
    set: int
    mode: str
    waits_s: list[float] = field(default_factory=list)
    read_waits_s: list[float] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="mcp-server-git", help="its command")
    parser.add_argument("--transcripts", type=Path, help="folder of Claude Code transcripts")
    parser.add_argument("--sessions", type=int, default=12, help="sessions of a set")
    parser.add_argument("--agent", help="Claude Code's command")
    parser.add_argument("--workload", action="append", help="its name; else all")
    parser.add_argument("--output", type=Path, default=Path("results"))
    options = parser.parse_args()
    if shutil.which(shlex.split(options.server)[0]) is None:
        print(f"{options.server} is not installed: nothing is measured")
        return
    rows: list[list[str]] = []
    digests = {}
    for workload, plans in workloads(options.transcripts, options.sessions):
        if workload not in (options.workload or [workload]):
            continue
        digests[workload] = digest(plans)
        for number, plan in enumerate(plans):
            server = shlex.split(options.server)
            if workload.endswith("distant"):
                server = [sys.executable, str(DISTANT), str(DISTANCE_S), *server]
            played = anyio.run(play_all_modes, workload, number, plan, server, options.agent)
            rows += map(row, played)
            print(*(" | ".join(cells) for cells in rows[-len(MODES) :]), sep="\n", flush=True)
    write(options, rows, digests)


def digest(plans: Sequence[Plan]) -> str:
    steps = [[[asdict(step) for step in session] for session in plan] for plan in plans]
    return hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()


def workloads(transcripts: Path | None, num_sessions: int) -> Iterator[tuple[str, list[Plan]]]:
    if transcripts is not None:
        sessions = [each for each in recorded(transcripts) if num_calls(each) >= MIN_CALLS]
        sets = [sessions[number::NUM_SETS][:num_sessions] for number in range(NUM_SETS)]
        yield "recorded, distant", sets
        yield "recorded", sets
    reviews = [[review(seed, n) for n in range(num_sessions)] for seed in range(NUM_SETS)]
    yield "scripted review, distant", reviews
    yield "writes between reads", [[writes(seed)] * 2 for seed in range(NUM_SETS)]


def num_calls(steps: Sequence[Step]) -> int:
    return sum(bool(step.tool) for step in steps)


def review(seed: int, number: int) -> list[Step]:
    pick = random.Random(f"{seed} {number}").randrange(3)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("git_status", {}),
        ("git_diff_unstaged", {}),
        ("git_diff_staged", {}),
        ("git_log", {"max_count": 5}),
        ("git_show", {"revision": f"revision {pick}"}),
        ("git_branch", {"branch_type": "local"}),
    ]
    return [Step("", {}, 0.0), *(Step(tool, arguments, MAX_PAUSE_S) for tool, arguments in calls)]


def writes(seed: int) -> list[Step]:
    steps = []
    for number in range(20):
        read = ("git_status", "git_diff_staged", "git_log")[(seed + number) % 3]
        steps += [Step(read, {}, 0.2), Step("git_add", {"files": ["."]}, 0.2)]
    return steps


class Repository:
    """A repository made for one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self._random = random.Random(seed)
        self.git("init", "-q", "-b", "main")
        for number in range(NUM_FILES):
            path = folder / f"dir{number % 8}" / f"file{number}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"value_{line} = {line}\n" for line in range(200)))
        for number in range(NUM_COMMITS):
            self.edit()
            self.git("add", ".")
            self.git("commit", "-q", "-m", f"change {number}")
        for number in range(4):
            self.git("branch", f"branch{number}", f"HEAD~{number}")
        self.revisions = self.git("log", "--format=%H").split()

    def git(self, *words: str) -> str:
        """Run git; returns its output."""
        names = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        command = ["git", *names, *words]
        return subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout

    def edit(self) -> None:
        """Change a file."""
        path = self._random.choice(sorted(self.folder.glob("dir*/*.py")))
        with path.open("a") as file:
            file.write(f"more_{self._random.randrange(10**9)} = 1\n")

    def filled(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments with this repository's path, revisions and branches."""
        given = {name: self._known(value) for name, value in arguments.items()}
        return {"repo_path": str(self.folder), **given}

    def _known(self, value: Any) -> Any:
        kind, _, name = value.partition(" ") if isinstance(value, str) else ("", "", "")
        number = int(hashlib.sha256(name.encode()).hexdigest(), 16)
        if kind == "revision":
            return self.revisions[number % len(self.revisions)]
        return f"branch{number % 4}" if kind == "branch" else value


async def play_all_modes(
    workload: str, number: int, plan: Plan, server: Sequence[str], agent: str | None
) -> list[Played]:
    played = [Played(workload, number, mode) for mode in MODES]
    async with anyio.create_task_group() as tasks:
        for each in played:
            tasks.start_soon(play, each, plan, server, agent)
    return played


async def play(played: Played, plan: Plan, server: Sequence[str], agent: str | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mcp-proxy-"))
    try:
        (folder / "repository").mkdir()
        repository = await anyio.to_thread.run_sync(Repository, folder / "repository", played.set)
        async with opened(played, server, folder / "stderr") as url:
            for steps in plan:
                if agent is None:
                    await play_session(played, steps, repository, server, url)
                else:
                    await play_agent(played, steps, repository, server, url, agent)
        if url:
            text = (folder / "stderr").read_text()
            for pattern in SUMMARY[: MODES.index(played.mode) - 1]:
                found = pattern.search(text)
                assert found is not None, text
                played.counts |= {name: float(value) for name, value in found.groupdict().items()}
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def opened(played: Played, server: Sequence[str], errors: Path) -> AsyncIterator[str]:
    """The URL of the proxy; empty without one."""
    if played.mode == MODES[0]:
        yield ""
        return
    none = errors.with_name("policies.toml")
    none.touch()
    options = {"no policies": ["--policies", str(none)], MODES[-1]: ["--speculate"]}
    command = [sys.executable, "-m", "holdfast", "mcp-proxy", "--port", "0"]
    command += options.get(played.mode, [])
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*command, "--", *server], stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None
    line = await anyio.to_thread.run_sync(process.stdout.readline)
    try:
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        await anyio.to_thread.run_sync(process.wait)
        process.stdout.close()


async def play_session(
    played: Played, steps: list[Step], repository: Repository, server: Sequence[str], url: str
) -> None:
    async with client(server, url) as session:
        await session.initialize()
        await session.list_tools()
        for step in steps:
            await anyio.sleep(step.pause_s)
            if not step.tool:
                repository.edit()
                continue
            began_s = time.perf_counter()
            await session.call_tool(step.tool, repository.filled(step.arguments))
            note_wait(played, step, time.perf_counter() - began_s)


def note_wait(played: Played, step: Step, waited_s: float) -> None:
    played.waits_s.append(waited_s)
    if step.tool in READS:
        played.read_waits_s.append(waited_s)


async def play_agent(
    played: Played,
    steps: list[Step],
    repository: Repository,
    server: Sequence[str],
    url: str,
    agent: str,
) -> None:
    """A run of Claude Code that makes the calls."""
    coming = iter(steps)
    called: list[Step] = []

    async def ask(num_results: int) -> tuple[str, dict[str, Any]] | None:
        assert num_results == len(called)
        for step in coming:
            await anyio.sleep(step.pause_s)
            if step.tool:
                called.append(step)
                return step.tool, repository.filled(step.arguments)
            repository.edit()
        return None

    async with ScriptedModel(ask).running() as model:
        await run_agent(agent, model.url, repository.folder.parent, server, url)
    for step, waited_s in zip(called, model.waits_s, strict=True):
        note_wait(played, step, waited_s)


@asynccontextmanager
async def client(server: Sequence[str], url: str) -> AsyncIterator[ClientSession]:
    program, *arguments = server
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(os.environ))
    transport = streamable_http_client(url) if url else stdio_client(parameters)
    async with transport as streams, ClientSession(*streams) as session:
        yield session


def row(played: Played) -> list[str]:
    counts = played.counts
    early = played.mode == MODES[-1]
    started = counts.get("started", 0.0)
    hits = counts.get("used", 0.0) + counts.get("late", 0.0)
    read_s = sum(played.read_waits_s)
    return [
        *(played.workload, str(played.set), played.mode),
        *(str(len(played.waits_s)), str(len(played.read_waits_s))),
        f"{counts['answered']:.0f}" if counts else "-",
        *(f"{counts[name]:.0f}" if early else "-" for name in ("started", "used", "late")),
        f"{hits / started:.2f}" if started else "-",
        f"{counts['wasted_s']:.1f}" if early else "-",
        *(f"{read_s:.1f}", f"{sum(played.waits_s) - read_s:.1f}"),
    ]


def agent_version(agent: str | None) -> str | None:
    if agent is None:
        return None
    command = [*shlex.split(agent), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(options: argparse.Namespace, rows: list[list[str]], digests: dict[str, str]) -> None:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / ("mcp_agent" if options.agent else "mcp_proxy")
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    stem.with_suffix(".md").write_text(table)
    manifest = run_manifest(
        arguments={
            "sessions": options.sessions,
            "max_pause_s": MAX_PAUSE_S,
            "after_edit_s": AFTER_EDIT_S,
            "distance_s": DISTANCE_S,
            "min_calls": MIN_CALLS,
            "server": Path(shlex.split(options.server)[0]).name,
            "mcp": version("mcp"),
            "agent": agent_version(options.agent),
            "git_optional_locks": os.environ.get("GIT_OPTIONAL_LOCKS", "1"),
        },
        runs=[],
        digests=digests,
    )
    content = {"manifest": manifest, "rows": [dict(zip(COLUMNS, r, strict=True)) for r in rows]}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
