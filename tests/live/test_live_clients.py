"""Real clients, installed from npm, against `holdfast serve` on the CPU.

Not among `make test`: each client is a download of about 100 MB. `make explore` runs them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.live, pytest.mark.server]

_CODEX = "@openai/codex@0.171.0"
_CLAUDE = "@anthropic-ai/claude-code@2.1.332"
_ROOT = Path(__file__).parents[2]
_INSTALL_S, _RUN_S = 600, 900
_TASK = "Look at the directory, then say whether all is well."


@dataclass(frozen=True, slots=True)
class Server:
    """A server with its decision log."""

    url: str
    log: Path

    def turns(self, client: str) -> list[dict[str, Any]]:
        """Turns of one client that have ended, with what was known when they arrived."""
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        ended = {event["request"] for event in events if event["event"] == "turn_ended"}
        arrived = [event for event in events if event["event"] == "turn_arrived"]
        return [e for e in arrived if e["client"] == client and e["request"] in ended]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("live")
    log = directory / "decisions.jsonl"
    model = build_tiny_model(directory / "model")
    options = EngineOptions(
        model=model,
        kv_tokens=300_000,
        max_model_len=131_072,
        config=HoldfastConfig(strict=True, decision_log=str(log)),
        environ={
            "LIVE_TEST_MODEL": str(model),
            "PYTHONPATH": os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", ""))),
        },
        extra_arguments=(
            *("--served-model-name", "scripted"),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
            "--middleware=tests.live.scripted_answers.ScriptedAnswers",
        ),
    )
    with EngineServer("holdfast", options, directory / "server.log") as running:
        yield Server(running.url, log)


def _installed(package: str, command: str, directory: Path) -> str:
    """The command of an npm package; skips the test where it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    arguments = [npm, "install", "--prefix", str(directory), "--no-audit", "--no-fund", package]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not install {package} in {_INSTALL_S} s")
    if done.returncode:
        pytest.skip(f"npm does not install {package}: {done.stderr[-300:]}")
    return str(directory / "node_modules" / ".bin" / command)


def _run(arguments: list[str], directory: Path, **environ: str) -> str:
    work = directory / "work"
    work.mkdir()
    done = subprocess.run(
        arguments,
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_codex_runs_as_one_session(server: Server, tmp_path: Path) -> None:
    codex = _installed(_CODEX, "codex", tmp_path)
    (tmp_path / "config.toml").write_text(
        'model = "scripted"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{server.url}/v1"\nwire_api = "responses"\n'
    )
    arguments = [codex, "exec", "--skip-git-repo-check", "-s", "danger-full-access", _TASK]
    assert "All is well" in _run(arguments, tmp_path, CODEX_HOME=str(tmp_path))
    turns = until(lambda: [t for t in server.turns("Codex CLI") if not t["is_side_call"]])
    assert len(turns) >= 2
    assert len({turn["session"] for turn in turns}) == 1
    assert all(turn["session_id"] for turn in turns)


def test_claude_code_runs_as_one_session(server: Server, tmp_path: Path) -> None:
    claude = _installed(_CLAUDE, "claude", tmp_path)
    environ = {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
        "ANTHROPIC_MODEL": "scripted",
        "ANTHROPIC_SMALL_FAST_MODEL": "scripted",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    arguments = [claude, "-p", _TASK, "--allowed-tools", "Bash"]
    assert "All is well" in _run(arguments, tmp_path, **environ)
    turns = until(lambda: [t for t in server.turns("Claude Code") if not t["is_side_call"]])
    assert len(turns) >= 2
    assert len({turn["session"] for turn in turns}) == 1
    assert all(turn["session_id"] for turn in turns)
