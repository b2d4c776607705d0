"""Real clients: how they are installed and run, and what their model says."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["CLAUDE_CODE", "CODEX", "installed", "npm_command", "run_client"]

CODEX = "@openai/codex@0.171.0"
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.332"
_INSTALL_S, _RUN_S = 600, 900


def installed(command: Sequence[str]) -> None:
    """Run an installer; skips the test where it cannot."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"cannot be installed: {error}")
    if done.returncode:
        pytest.skip(f"cannot be installed: {done.stderr[-500:]}")


def npm_command(package: str, command: str, folder: Path) -> str:
    """A command of an npm package; skips the test where it cannot be had."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    installed(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", package])
    return str(folder / "node_modules" / ".bin" / command)


def run_client(arguments: Sequence[str], home: Path, **environ: str) -> str:
    """What a client prints that runs once, in a directory of its own."""
    work = home / "work"
    work.mkdir()
    done = subprocess.run(
        arguments,
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
